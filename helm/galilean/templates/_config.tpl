{{/*
galilean.yaml: what the chart decides, and over it what stands in the values' `config`. (The schema of the values
lets nobody name there what only the chart can know.) Peers and rules of `config.kubernetes.network` come beside the
chart's own: without those nodes would be sealed off from their hub.
*/}}
{{- define "galilean.config" -}}
{{- $name := include "galilean.fullname" . -}}
{{- $parts := include "galilean.parts" . | fromYaml -}}
{{- $addresses := dict "proxy_api" (printf "http://%s-proxy-api:8001" $name) -}}
{{- range $part, $about := $parts -}}
{{- $_ := set $addresses $part (printf "http://%s-%s:%v" $name $part $about.port) -}}
{{- end -}}
{{- $secrets := list -}}
{{- range .Values.images.pullSecrets }}{{ $secrets = append $secrets .name }}{{ end -}}
{{- $network := dig "kubernetes" "network" dict .Values.config -}}
{{- $reachedBy := list (include "galilean.peer" (list . "proxy") | fromYaml) (include "galilean.peer" (list . "hub") | fromYaml) -}}
{{- $reaches := list -}}
{{- range list "hub" "portal" -}}
{{- $port := dict "protocol" "TCP" "port" (index $parts .).port -}}
{{- $reaches = append $reaches (dict "to" (list (include "galilean.peer" (list $ .) | fromYaml)) "ports" (list $port)) -}}
{{- end -}}
{{- $own := dict
  "backend" "kubernetes"
  "state" "/var/lib/galilean/state"
  "addresses" $addresses
  "web" (dict "host" "0.0.0.0" "port" 8000 "public_url" (include "galilean.publicUrl" .))
  "kubernetes" (dict
    "namespace" .Release.Namespace
    "image" (include "galilean.image" (list . "node"))
    "image_pull_secrets" $secrets
  )
  "volumes" (dict "default" (dict
    "kind" "claim"
    "path" "/srv/galilean/volumes/default"
    "claim" (include "galilean.claimName" (list . "projects"))
  ))
-}}
{{- if .Values.imagebuilder.enabled -}}
{{- $registry := dict "upload_folder" (include "galilean.uploads" .) -}}
{{- if .Values.imagebuilder.registrySecret }}{{ $_ := set $registry "password_file" "/etc/galilean/registry/password" }}{{ end -}}
{{- $_ := set $own "images" (dict "registry" $registry) -}}
{{- $_ := set $own.kubernetes "agents_namespace" (include "galilean.agentsNamespace" .) -}}
{{- $_ := set $own.kubernetes "images_namespace" (include "galilean.imagesNamespace" .) -}}
{{- end -}}
{{- $config := mergeOverwrite $own (deepCopy .Values.config) -}}
{{- $_ := set $config.kubernetes "network" (merge (dict
  "reached_by" (concat $reachedBy (dig "reached_by" list $network))
  "reaches" (concat $reaches (dig "reaches" list $network))
) $network) -}}
{{- $config | toYaml }}
{{- end }}

{{/* A peer of a NetworkPolicy: the pods of a part. */}}
{{- define "galilean.peer" -}}
podSelector:
  matchLabels: {{- include "galilean.selector" . | nindent 4 }}
{{- end }}

{{/* The address in browsers, where the values let it be known. */}}
{{- define "galilean.publicUrl" -}}
{{- if and .Values.ingress.enabled .Values.ingress.host (not (dig "web" "subdomain_host" "" .Values.config)) -}}
http{{ if .Values.ingress.tlsSecret }}s{{ end }}://{{ .Values.ingress.host }}{{ include "galilean.base" . }}
{{- end }}
{{- end }}
