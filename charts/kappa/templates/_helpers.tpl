{{/* Names are fixed: the parts find each other by them, and one namespace holds one Kappa. What is cluster-wide carries the namespace. */}}

{{- define "kappa.labels" -}}
app.kubernetes.io/name: kappa
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/part-of: kappa
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "kappa.selector" -}}
app.kubernetes.io/name: kappa
app.kubernetes.io/component: {{ . }}
{{- end }}

{{- define "kappa.clusterName" -}}
kappa:{{ .root.Release.Namespace }}:{{ .part }}
{{- end }}

{{- define "kappa.image" -}}
{{ .root.Values.images.prefix }}{{ .name }}:{{ .root.Values.images.tag }}
{{- end }}

{{- define "kappa.pullSecrets" -}}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* Restricted Pod Security, for every pod of the chart. */}}
{{- define "kappa.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "kappa.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Whether the chart's own PostgreSQL runs: a DSN of somebody else's sets it aside. */}}
{{- define "kappa.ownPostgresql" -}}
{{- if and .Values.postgresql.enabled (not .Values.postgresql.dsn) (not .Values.postgresql.existingSecret) }}true{{ end }}
{{- end }}

{{- define "kappa.postgresqlSecret" -}}
{{- if .Values.postgresql.existingSecret }}{{ .Values.postgresql.existingSecret }}
{{- else if .Values.postgresql.dsn }}kappa-postgresql-dsn
{{- else if .Values.postgresql.enabled }}kappa-postgresql
{{- end }}
{{- end }}

{{- define "kappa.postgresqlSecretKey" -}}
{{- if .Values.postgresql.existingSecret }}{{ .Values.postgresql.existingSecretKey }}{{ else }}dsn{{ end }}
{{- end }}

{{/* Variables that gateway and operator share. */}}
{{- define "kappa.env" -}}
- name: KAPPA_POD_NAME
  valueFrom: { fieldRef: { fieldPath: metadata.name } }
- name: KAPPA_NAMESPACE
  valueFrom: { fieldRef: { fieldPath: metadata.namespace } }
- name: KAPPA_NAMESPACE_DEFAULT
  value: {{ .Values.functions.namespace | quote }}
- name: KAPPA_WATCH_NAMESPACES
  value: {{ join "," .Values.functions.onlyNamespaces | quote }}
- name: KAPPA_REGION
  value: {{ .Values.region | quote }}
- name: KAPPA_LINK_SERVICE
  value: kappa-gateway-links
- name: KAPPA_LINK_PORT
  value: "9443"
- name: KAPPA_LINK_NAME
  value: kappa-gateway-links.{{ .Release.Namespace }}.svc
- name: KAPPA_CLUSTER_CIDRS
  value: {{ join "," .Values.network.clusterCidrs | quote }}
- name: KAPPA_RUNTIME_IMAGES
  value: {{ .Values.images.runtimes | toJson | quote }}
{{- end }}

{{/* Variables of a component's own `env`. */}}
{{- define "kappa.ownEnv" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}

{{/* Where pods of a component go: scheduling values, and a spread over nodes that never keeps a pod waiting. */}}
{{- define "kappa.scheduling" -}}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "kappa.selector" .component | nindent 8 }}
{{- end }}

{{/*
Rights in the namespaces of functions: a ClusterRole, or, with functions.onlyNamespaces, a Role in each of them.
Parameters: root, part (the ServiceAccount is kappa-<part>), rules (YAML).
*/}}
{{- define "kappa.functionRights" -}}
{{- $name := include "kappa.clusterName" . }}
{{- $labels := include "kappa.labels" (dict "root" .root "component" .part) }}
{{- if .root.Values.functions.onlyNamespaces }}
{{- range $namespace := .root.Values.functions.onlyNamespaces }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $name }}
  namespace: {{ $namespace }}
  labels:
    {{- $labels | nindent 4 }}
rules:
  {{- $.rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $name }}
  namespace: {{ $namespace }}
  labels:
    {{- $labels | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ $name }}
subjects:
  - kind: ServiceAccount
    name: kappa-{{ $.part }}
    namespace: {{ $.root.Release.Namespace }}
{{- end }}
{{- else }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ $name }}
  labels:
    {{- $labels | nindent 4 }}
rules:
  {{- .rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ $name }}
  labels:
    {{- $labels | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ $name }}
subjects:
  - kind: ServiceAccount
    name: kappa-{{ .part }}
    namespace: {{ .root.Release.Namespace }}
{{- end }}
{{- end }}

{{/* The same for rights that are about the cluster itself. Parameters: root, part, rules. */}}
{{- define "kappa.clusterRights" -}}
{{- $name := printf "%s-cluster" (include "kappa.clusterName" .) }}
{{- $labels := include "kappa.labels" (dict "root" .root "component" .part) }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ $name }}
  labels:
    {{- $labels | nindent 4 }}
rules:
  {{- .rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ $name }}
  labels:
    {{- $labels | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ $name }}
subjects:
  - kind: ServiceAccount
    name: kappa-{{ .part }}
    namespace: {{ .root.Release.Namespace }}
{{- end }}

{{/* Rights in one namespace. Parameters: root, part, namespace, rules. */}}
{{- define "kappa.namespaceRights" -}}
{{- $name := ternary (printf "kappa-%s" .part) (include "kappa.clusterName" .) (eq .namespace .root.Release.Namespace) }}
{{- $labels := include "kappa.labels" (dict "root" .root "component" .part) }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $name }}
  namespace: {{ .namespace }}
  labels:
    {{- $labels | nindent 4 }}
rules:
  {{- .rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $name }}
  namespace: {{ .namespace }}
  labels:
    {{- $labels | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ $name }}
subjects:
  - kind: ServiceAccount
    name: kappa-{{ .part }}
    namespace: {{ .root.Release.Namespace }}
{{- end }}
