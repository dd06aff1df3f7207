"""What people look at: Prometheus metrics, access lines, and the function logs that the supervisors send."""
