{{/* What the pods of all parts have in common. Each takes (dict "root" $ "name" "hub" "values" .Values.hub). */}}

{{/* The beginning of a pod's spec. */}}
{{- define "galilean.podSpec" -}}
{{- $root := .root -}}
enableServiceLinks: false
{{- if .account }}
serviceAccountName: {{ include "galilean.fullname" $root }}-{{ .name }}
{{- end }}
automountServiceAccountToken: {{ .account | default false }}
securityContext:
  runAsNonRoot: true
  runAsUser: 1000
  runAsGroup: 1000
  fsGroup: 1000
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with $root.Values.images.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with merge (deepCopy .values.nodeSelector) $root.Values.parts.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with concat $root.Values.parts.tolerations .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- $affinity := deepCopy .values.affinity }}
{{- if and (include "galilean.sqlite" $root) (ne .name "proxy") }}
{{- $affinity = mergeOverwrite $affinity (include "galilean.together" $root | fromYaml) }}
{{- end }}
{{- with $affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* SQLite is for one machine: whoever opens its files runs where the others do. */}}
{{- define "galilean.together" -}}
podAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    - topologyKey: kubernetes.io/hostname
      labelSelector:
        matchLabels: {galilean.io/state: {{ include "galilean.fullname" . }}}
{{- end }}

{{- define "galilean.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Image, environment and mounts of a container that runs our Python. */}}
{{- define "galilean.python" -}}
{{- $root := .root -}}
image: {{ include "galilean.image" (list $root "control") }}
{{- with $root.Values.images.pullPolicy }}
imagePullPolicy: {{ . }}
{{- end }}
securityContext: {{- include "galilean.containerSecurity" $root | nindent 2 }}
env:
  - {name: GALILEAN_CONFIG, value: /etc/galilean/galilean.yaml}
  - {name: GALILEAN_STATE, value: /var/lib/galilean/state}
  - {name: GALILEAN_SECRETS, value: /etc/galilean/secrets}
  - {name: HOME, value: /tmp}
{{- if not (include "galilean.sqlite" $root) }}
{{- $database := include "galilean.databaseSecretName" $root }}
  - name: GALILEAN_DATABASE_URL
    valueFrom: {secretKeyRef: {name: {{ $database }}, key: url}}
{{- if eq .name "hub" }}
  - name: GALILEAN_HUB_DATABASE_URL
    valueFrom: {secretKeyRef: {name: {{ $database }}, key: hub-url}}
{{- end }}
{{- end }}
{{- if $root.Values.authority.configMap }}
  - {name: SSL_CERT_FILE, value: /etc/galilean/authority/ca.crt}
{{- end }}
{{- with concat $root.Values.parts.extraEnv .values.extraEnv }}
  {{- toYaml . | nindent 2 }}
{{- end }}
volumeMounts:
  - {name: config, mountPath: /etc/galilean/galilean.yaml, subPath: galilean.yaml, readOnly: true}
  - {name: secrets, mountPath: /etc/galilean/secrets, readOnly: true}
  - {name: state, mountPath: /var/lib/galilean} # the directory below it is then our own account's
  - {name: tmp, mountPath: /tmp}
{{- if and (eq .name "imagebuilder") $root.Values.imagebuilder.registrySecret }}
  - {name: registry, mountPath: /etc/galilean/registry, readOnly: true}
{{- end }}
{{- if and (eq .name "imagebuilder") (include "galilean.uploads" $root) }}
  - {name: uploads, mountPath: {{ include "galilean.uploads" $root }}, subPath: {{ include "galilean.uploadFolder" $root }}}
{{- end }}
{{- if $root.Values.authority.configMap }}
  - {name: authority, mountPath: /etc/galilean/authority, readOnly: true}
{{- end }}
{{- if .files }}
{{- range $id, $volume := (include "galilean.config" $root | fromYaml).volumes }}
{{- if eq $volume.kind "claim" }}
  - {name: volume-{{ $id }}, mountPath: {{ $volume.path }}}
{{- end }}
{{- end }}
{{- end }}
{{- with .values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The volumes that "galilean.python" mounts. */}}
{{- define "galilean.volumes" -}}
{{- $root := .root -}}
- name: config
  configMap: {name: {{ include "galilean.fullname" $root }}-config}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      - secret:
          name: {{ include "galilean.secretName" $root }}
          items:
            {{- range .secrets }}
            - {key: {{ . }}, path: {{ . }}}
            {{- end }}
      {{- if eq .name "hub" }}
      - secret:
          name: {{ include "galilean.secretName" $root }}
          optional: true
          items: [{key: admin-password, path: admin-password}]
      {{- end }}
- name: tmp
  emptyDir: {}
{{- if include "galilean.sqlite" $root }}
- name: state
  persistentVolumeClaim: {claimName: {{ include "galilean.claimName" (list $root "state") }}}
{{- else }}
- name: state
  emptyDir: {}
{{- end }}
{{- if and (eq .name "imagebuilder") $root.Values.imagebuilder.registrySecret }}
- name: registry
  secret:
    secretName: {{ $root.Values.imagebuilder.registrySecret }}
    defaultMode: 0440
    items: [{key: password, path: password}]
{{- end }}
{{- if and (eq .name "imagebuilder") (include "galilean.uploads" $root) }}
- name: uploads
  persistentVolumeClaim: {claimName: {{ (include "galilean.config" $root | fromYaml).volumes.default.claim }}}
{{- end }}
{{- with $root.Values.authority.configMap }}
- name: authority
  configMap: {name: {{ . }}}
{{- end }}
{{- if .files }}
{{- range $id, $volume := (include "galilean.config" $root | fromYaml).volumes }}
{{- if eq $volume.kind "claim" }}
- name: volume-{{ $id }}
  persistentVolumeClaim: {claimName: {{ $volume.claim }}}
{{- end }}
{{- end }}
{{- end }}
{{- with .values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
