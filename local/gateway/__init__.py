"""The AWS side of the deployment on one machine: APIs, function workers, queues and schedules out of template.yaml."""
