{{/* Names, labels, and the table of the parts that run our Python. */}}

{{- define "galilean.fullname" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* What selects the pods of a part: (list $ "hub"). */}}
{{- define "galilean.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Values.nameOverride | default $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* Labels of every object of the chart: (list $ "hub"). */}}
{{- define "galilean.labels" -}}
{{- $root := index . 0 -}}
{{ include "galilean.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/*
The parts that run our Python, all but the proxy.
  port     that the part listens on
  health   what says that it works; live: what says that its process is alive
  patience failures of `live`, ten seconds apart, before the pod is started again
  account  whether it speaks to Kubernetes
  files    whether it reads and writes people's projects
  secrets  that the part must know
  from     the parts that may reach it, besides the release's own jobs; nodes: whether nodes may
*/}}
{{- define "galilean.parts" -}}
{{- $base := include "galilean.base" . -}}
hub: {port: 8081, health: {{ $base }}hub/health, live: {{ $base }}hub/health, patience: 30, account: true, files: true,
  secrets: [cookie, proxy, token-portal, token-metering, token-release, token-queue, token-machines, token-command],
  from: [hub, proxy, portal, metering, release, queue, machines{{ if .Values.imagebuilder.enabled }}, imagebuilder{{ end }}], nodes: true}
portal: {port: 8082, health: /health, live: /metrics, patience: 6, files: true,
  secrets: [portal-cookie, token-portal], from: [proxy, hub, release], nodes: true}
metering: {port: 8083, health: /health, live: /metrics, patience: 6, account: true, secrets: [token-metering], from: []}
release: {port: 8084, health: /health, live: /metrics, patience: 6, secrets: [token-release], from: []}
queue: {port: 8085, health: /health, live: /metrics, patience: 6, secrets: [token-queue], from: []}
{{- if .Values.machines.enabled }}
machines: {port: 8086, health: /health, live: /metrics, patience: 6, account: true, secrets: [token-machines], from: [portal]}
{{- end }}
{{- if .Values.imagebuilder.enabled }}
imagebuilder: {port: 8087, health: /health, live: /metrics, patience: 6, account: true,
  secrets: [token-imagebuilder, agent], from: [portal]}
{{- end }}
{{- end }}

{{/* Where the agents run that read nodes to be saved. */}}
{{- define "galilean.agentsNamespace" -}}
{{- .Values.imagebuilder.agents.namespace | default (printf "%s-agents" .Release.Namespace) }}
{{- end }}

{{/* Where pods have machines fetch images; empty = nowhere. */}}
{{- define "galilean.imagesNamespace" -}}
{{- if and .Values.imagebuilder.enabled .Values.imagebuilder.distribution.enabled -}}
{{- .Values.imagebuilder.distribution.namespace | default (printf "%s-images" .Release.Namespace) }}
{{- end -}}
{{- end }}

{{/* The path under which everything is: "/" or "/something/". */}}
{{- define "galilean.base" -}}
{{- $path := trimAll "/" (dig "web" "base_url" "" .Values.config) -}}
{{- if $path }}/{{ $path }}/{{ else }}/{{ end }}
{{- end }}

{{/*
Where packed images come in: a folder of the first volume, which the portal has all of and the image service nothing
else. Empty = nobody uploads any.
*/}}
{{- define "galilean.uploadFolder" -}}.galilean-images{{- end }}
{{- define "galilean.uploads" -}}
{{- if and .Values.imagebuilder.enabled (ne (dig "images" "registry" "upload" "some" .Values.config | toString) "0") -}}
{{- dig "volumes" "default" "path" "/srv/galilean/volumes/default" .Values.config }}/{{ include "galilean.uploadFolder" . }}
{{- end -}}
{{- end }}

{{/* Whether the databases are files of the claim "state": "true" or nothing. */}}
{{- define "galilean.sqlite" -}}
{{- if not (or .Values.database.url .Values.database.existingSecret) }}true{{ end }}
{{- end }}

{{- define "galilean.secretName" -}}
{{- .Values.secret.existing | default (printf "%s-secrets" (include "galilean.fullname" .)) }}
{{- end }}

{{- define "galilean.databaseSecretName" -}}
{{- .Values.database.existingSecret | default (printf "%s-database" (include "galilean.fullname" .)) }}
{{- end }}

{{/* Name of the claim "projects" or "state": (list $ "projects"). */}}
{{- define "galilean.claimName" -}}
{{- $root := index . 0 -}}
{{- (index $root.Values.storage (index . 1)).existingClaim | default (printf "%s-%s" (include "galilean.fullname" $root) (index . 1)) }}
{{- end }}

{{/* An image's full name: (list $ "control"). */}}
{{- define "galilean.image" -}}
{{- $root := index . 0 -}}
{{- $image := index $root.Values.images (index . 1) -}}
{{- if $image.digest }}{{ $image.repository }}@{{ $image.digest }}
{{- else }}{{ $image.repository }}:{{ $image.tag | default $root.Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* The host names of an Ingress or a route, as a list in JSON: (list $ .Values.ingress.host). */}}
{{- define "galilean.hosts" -}}
{{- $root := index . 0 -}}
{{- $split := dig "web" "subdomain_host" "" $root.Values.config -}}
{{- if $split -}}
{{- $host := (urlParse $split).hostname -}}
{{- list $host (printf "*.%s" $host) | toJson }}
{{- else if index . 1 -}}
{{- list (index . 1) | toJson }}
{{- else -}}
[]
{{- end }}
{{- end }}
