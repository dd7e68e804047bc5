"""Optional integrations: exporters of metrics, oslo.config, oslo.reports, keystoneauth1."""
