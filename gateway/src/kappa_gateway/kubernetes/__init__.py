"""The gateway on Kubernetes: put together over the cluster's API, its Leases, Deployments and reviews. A laptop loads nothing of it."""
