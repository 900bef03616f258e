# Where

variable "region" {
  description = "AWS region of everything here, the GPU instance included; e.g. us-east-1."
  type        = string
  default     = "us-east-1"

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "region must be the code of an AWS region, such as us-east-1."
  }
}

variable "environment" {
  description = "Suffix of all names, so that one account can hold several systems; empty for the design's own names. Up to 12 of a-z, 0-9 and single '-' between them."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^([a-z][a-z0-9]*(-[a-z0-9]+)*)?$", var.environment)) && length(var.environment) <= 12
    error_message = "environment must be empty, or a letter and up to 11 of a-z, 0-9 and '-', without '--' and '-' at the end: names of load balancers and image repositories refuse those."
  }
}

variable "tags" {
  description = "Tags for every resource, besides Project and ManagedBy."
  type        = map(string)
  default     = {}
}

variable "emulated" {
  description = "True where AWS_ENDPOINT_URL names an emulator: the provider gives up at once what an emulator does not support."
  type        = bool
  default     = false
}

# Shared numbers. A test ties their defaults to those of the services' own settings.

variable "visibility_timeout_s" {
  description = "How long a received message stays hidden, and a task leased, unless renewed. Seconds, 30 to 43200."
  type        = number
  default     = 300

  validation {
    condition     = var.visibility_timeout_s >= 30 && var.visibility_timeout_s <= 43200 && floor(var.visibility_timeout_s) == var.visibility_timeout_s
    error_message = "visibility_timeout_s must be a whole number of seconds from 30 to 43200."
  }
}

variable "heartbeat_s" {
  description = "How often the adapter renews a lease. Seconds, at least 5, less than half of visibility_timeout_s."
  type        = number
  default     = 100

  validation {
    condition     = var.heartbeat_s >= 5 && var.heartbeat_s < var.visibility_timeout_s / 2
    error_message = "heartbeat_s must be at least 5 and less than half of visibility_timeout_s, so that one renewal may be missed without losing the task."
  }
}

variable "idle_s" {
  description = "Rules A and B: the GPU is stopped after so long without a new task. Seconds, multiple of 300, 600 to 86400."
  type        = number
  default     = 1800

  validation {
    condition     = var.idle_s >= 600 && var.idle_s <= 86400 && var.idle_s % 300 == 0
    error_message = "idle_s must be a multiple of 300 (the alarm's period) from 600 to 86400 seconds."
  }
}

variable "job_deadline_s" {
  description = "How long one attempt of a job may take on the GPU. Seconds, at least 60, less than idle_s and than 1800."
  type        = number
  default     = 1500

  validation {
    condition     = var.job_deadline_s >= 60 && var.job_deadline_s < min(var.idle_s, 1800)
    error_message = "job_deadline_s must be from 60 to below both idle_s and 1800 seconds: rule B stops the GPU over a task that takes longer."
  }
}

variable "worker_grace_s" {
  description = "Rule C: tasks wait, but no worker with a healthy Unified API has reported for so long. Seconds, 300 to 7200; a boot takes 120 to 180."
  type        = number
  default     = 900

  validation {
    condition     = var.worker_grace_s >= 300 && var.worker_grace_s <= 7200
    error_message = "worker_grace_s must be from 300 to 7200 seconds: below that an instance would be stopped while it boots."
  }
}

variable "hold_s" {
  description = "After a stop by rule C the GPU is not started again for so long; doubles each time. Seconds, 60 to hold_max_s."
  type        = number
  default     = 900

  validation {
    condition     = var.hold_s >= 60 && var.hold_s <= var.hold_max_s
    error_message = "hold_s must be from 60 seconds to hold_max_s."
  }
}

variable "hold_max_s" {
  description = "The longest hold. Seconds, up to 86400."
  type        = number
  default     = 14400

  validation {
    condition     = var.hold_max_s <= 86400
    error_message = "hold_max_s must be at most 86400 seconds."
  }
}

variable "force_stop_after_s" {
  description = "A stop of the GPU that has not ended after so long is forced. Seconds, 300 to 3600."
  type        = number
  default     = 600

  validation {
    condition     = var.force_stop_after_s >= 300 && var.force_stop_after_s <= 3600
    error_message = "force_stop_after_s must be from 300 to 3600 seconds: below that an instance that shuts down would be cut off."
  }
}

variable "max_unfinished_per_client" {
  description = "Jobs without an end that one client (API key) may have; more are refused with 429. Count, at least 1."
  type        = number
  default     = 1000

  validation {
    condition     = var.max_unfinished_per_client >= 1 && floor(var.max_unfinished_per_client) == var.max_unfinished_per_client
    error_message = "max_unfinished_per_client must be a whole number from 1 on."
  }
}

variable "task_max_age_s" {
  description = "A task not finished by then is failed as expired. Seconds, from 3600 to below queue_retention_s."
  type        = number
  default     = 86400

  validation {
    condition     = var.task_max_age_s >= 3600 && var.task_max_age_s < var.queue_retention_s
    error_message = "task_max_age_s must be at least 3600 seconds and less than queue_retention_s, or SQS forgets a message before its task has ended."
  }
}

variable "queue_retention_s" {
  description = "How long SQS keeps a message. Seconds, 7200 to 1123200 (13 days): the dead-letter queue keeps it 14 days from its first send."
  type        = number
  default     = 345600

  validation {
    condition     = var.queue_retention_s >= 7200 && var.queue_retention_s <= 1123200
    error_message = "queue_retention_s must be from 7200 to 1123200 seconds, a day below the dead-letter queue's 14 days."
  }
}

variable "max_receive_count" {
  description = "Receives after which a message moves to the dead-letter queue. Count, 5 to 100; the table's own limit is 3 attempts."
  type        = number
  default     = 10

  validation {
    condition     = var.max_receive_count >= 5 && var.max_receive_count <= 100
    error_message = "max_receive_count must be from 5 to 100: it must leave room for the adapter's 3 attempts and for hand-backs."
  }
}

# Table

variable "table_deletion_protection" {
  description = "Whether DynamoDB refuses to delete the task table; set to false (and apply) before a destroy."
  type        = bool
  default     = true
}

variable "table_point_in_time_recovery" {
  description = "Whether the table can be restored to any second of the last 35 days, at $0.20 per GB-month."
  type        = bool
  default     = true
}

# Orchestrator

variable "orchestrator_mode" {
  description = "\"fargate\": behind a load balancer, about $37 a month. \"instance\": one t4g.small under systemd with its own TLS, about $18 a month, minutes of downtime at updates."
  type        = string
  default     = "fargate"

  validation {
    condition     = contains(["fargate", "instance"], var.orchestrator_mode)
    error_message = "orchestrator_mode must be \"fargate\" or \"instance\"."
  }
}

variable "orchestrator_image" {
  description = "Container image of the orchestrator (fargate); null for the tag orchestrator_version in the repository made here. Another private registry needs permissions added to the execution role."
  type        = string
  default     = null
}

variable "orchestrator_version" {
  description = "Image tag to run (fargate)."
  type        = string
  default     = "latest"

  validation {
    condition     = can(regex("^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$", var.orchestrator_version))
    error_message = "orchestrator_version must be an image tag."
  }
}

variable "orchestrator_architecture" {
  description = "\"ARM64\" or \"X86_64\" (fargate); ARM costs a fifth less."
  type        = string
  default     = "ARM64"

  validation {
    condition     = contains(["ARM64", "X86_64"], var.orchestrator_architecture)
    error_message = "orchestrator_architecture must be \"ARM64\" or \"X86_64\"."
  }
}

variable "orchestrator_cpu" {
  description = "Fargate CPU units (1024 = one vCPU): 256, 512, 1024 or 2048."
  type        = number
  default     = 256

  validation {
    condition     = contains([256, 512, 1024, 2048], var.orchestrator_cpu)
    error_message = "orchestrator_cpu must be 256, 512, 1024 or 2048."
  }
}

variable "orchestrator_memory_mb" {
  description = "Fargate memory in MiB: 512 (with 256 CPU units), or a multiple of 1024; two to eight times orchestrator_cpu."
  type        = number
  default     = 512

  validation {
    condition     = var.orchestrator_memory_mb >= 2 * var.orchestrator_cpu && var.orchestrator_memory_mb <= 8 * var.orchestrator_cpu
    error_message = "orchestrator_memory_mb must be two to eight times orchestrator_cpu, as Fargate has it."
  }

  validation {
    condition     = var.orchestrator_memory_mb % 1024 == 0 || (var.orchestrator_memory_mb == 512 && var.orchestrator_cpu == 256)
    error_message = "orchestrator_memory_mb must be a multiple of 1024, or 512 with orchestrator_cpu 256: Fargate has no other sizes."
  }
}

variable "orchestrator_max_tasks" {
  description = "Fargate tasks at the most under load, 1 to 10; one is always running. Above 1 the scaling has four alarms, $0.40 a month."
  type        = number
  default     = 2

  validation {
    condition     = var.orchestrator_max_tasks >= 1 && var.orchestrator_max_tasks <= 10
    error_message = "orchestrator_max_tasks must be from 1 to 10."
  }
}

variable "orchestrator_instance_type" {
  description = "EC2 type of the orchestrator (instance), ARM."
  type        = string
  default     = "t4g.small"

  validation {
    condition     = can(regex("^[a-z]+[0-9]+g[a-z]*\\.", var.orchestrator_instance_type))
    error_message = "orchestrator_instance_type must be an ARM (Graviton) type, such as t4g.small."
  }
}

variable "orchestrator_ami_id" {
  description = "Image of the orchestrator's instance (instance), Ubuntu 24.04 arm64; null for Canonical's newest."
  type        = string
  default     = null

  validation {
    condition     = var.orchestrator_ami_id == null || can(regex("^ami-[0-9a-f]{8,17}$", var.orchestrator_ami_id))
    error_message = "orchestrator_ami_id must look like ami-0123456789abcdef0."
  }
}

# Judged where they are used (orchestrator.tf): a validation here would print the line of the file that it refuses, key and all.
variable "api_key_hashes" {
  description = "API keys of the clients: name = SHA-256 of the key as 64 hexadecimal digits (printf %s \"$KEY\" | sha256sum). Kept in SSM. Empty if api_keys_arn is given."
  type        = map(string)
  default     = {}
}

variable "api_keys_arn" {
  description = "ARN of a Secrets Manager secret or SSM parameter that holds name:sha256hex,name2:sha256hex; null if api_key_hashes is given. A customer-managed KMS key of its own needs kms:Decrypt added to the role that reads it (fargate: the execution role)."
  type        = string
  default     = null

  validation {
    condition     = var.api_keys_arn == null || can(regex("^arn:[a-z-]+:(secretsmanager:[^:]+:[0-9]{12}:secret:|ssm:[^:]+:[0-9]{12}:parameter/)", var.api_keys_arn))
    error_message = "api_keys_arn must be the ARN of a Secrets Manager secret or of an SSM parameter, never a key or hash itself."
  }

  validation {
    condition     = (var.api_keys_arn != null) != (length(var.api_key_hashes) > 0)
    error_message = "Give the API keys exactly once: as api_key_hashes, or as api_keys_arn. Without keys anybody could use the GPU."
  }
}

variable "cors_origins" {
  description = "Origins whose pages may call from a browser, e.g. https://app.example.com."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for origin in var.cors_origins : can(regex("^(\\*|https?://[^/ ,]+)$", origin))])
    error_message = "cors_origins must be origins like https://app.example.com, without a path, or \"*\"."
  }
}

variable "image_buckets" {
  description = "Buckets and prefixes that clients' s3:// addresses may name, e.g. my-bucket or uploads/{client}/, where {client} is the client's name in api_key_hashes. The GPU fetches them by its own role, so a bucket of results named whole shows every client the others' pictures. Empty: no s3:// address; [\"*\"]: whatever the role can read."
  type        = list(string)
  default     = []

  validation {
    condition     = var.image_buckets == tolist(["*"]) || alltrue([for entry in var.image_buckets : can(regex("^[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9](/([^/?#*, \\\\][^/?#*,\\\\]*/)*)?$", entry))])
    error_message = "image_buckets must hold buckets (my-bucket) or prefixes that end with a slash (my-bucket/pictures/), without s3://; or [\"*\"] alone."
  }
}

variable "image_url_ports" {
  description = "Ports that images may be fetched from beside 80 and 443 (1 to 65535)."
  type        = list(number)
  default     = []

  validation {
    condition     = alltrue([for port in var.image_url_ports : port >= 1 && port <= 65535 && floor(port) == port])
    error_message = "image_url_ports must be whole numbers from 1 to 65535."
  }
}

variable "max_steps" {
  description = "Most sampling steps a job may ask for (8 to 10000). A job must end within job_deadline_s."
  type        = number
  default     = 100

  validation {
    condition     = var.max_steps >= 8 && var.max_steps <= 10000 && floor(var.max_steps) == var.max_steps
    error_message = "max_steps must be a whole number from 8 to 10000, as ComfyUI takes them."
  }
}

variable "max_cfg" {
  description = "Most guidance a job may ask for (1 to 100)."
  type        = number
  default     = 30

  validation {
    condition     = var.max_cfg >= 1 && var.max_cfg <= 100
    error_message = "max_cfg must be from 1 to 100, as ComfyUI takes it."
  }
}

variable "max_prompt" {
  description = "Longest prompt, in characters (1 to 250000)."
  type        = number
  default     = 10000

  validation {
    condition     = var.max_prompt >= 1 && var.max_prompt <= 250000 && floor(var.max_prompt) == var.max_prompt
    error_message = "max_prompt must be a whole number from 1 to 250000."
  }
}

variable "domain_name" {
  description = "Name the API is reached by, e.g. gpu.example.com, and the certificate's; null for an instance without an open port."
  type        = string
  default     = null

  validation {
    condition     = var.domain_name == null || can(regex("^([a-z0-9]([a-z0-9-]*[a-z0-9])?\\.)+[a-z]{2,}$", var.domain_name))
    error_message = "domain_name must be a full host name, such as gpu.example.com."
  }
}

variable "route53_zone_id" {
  description = "Hosted zone in which domain_name and the certificate's validation are recorded; null if DNS is kept elsewhere. $0.50 a month."
  type        = string
  default     = null

  validation {
    condition     = var.route53_zone_id == null || var.domain_name != null
    error_message = "route53_zone_id needs domain_name: which name is to be recorded in the zone?"
  }
}

variable "certificate_arn" {
  description = "ACM certificate for domain_name (fargate), in this region; null to have one made by route53_zone_id. Free."
  type        = string
  default     = null

  validation {
    condition     = var.orchestrator_mode != "fargate" || var.certificate_arn != null || (var.domain_name != null && var.route53_zone_id != null)
    error_message = "HTTPS needs a certificate: give domain_name and certificate_arn, or domain_name and route53_zone_id to have one made. API keys never travel in the clear."
  }

  validation {
    condition     = var.certificate_arn == null || var.orchestrator_mode != "fargate" || var.domain_name != null
    error_message = "certificate_arn needs domain_name: clients call the name that the certificate is for, and it points to output balancer_dns_name."
  }

  validation {
    condition     = var.certificate_arn == null || can(regex("^arn:[a-z-]+:acm:${var.region}:[0-9]{12}:certificate/", var.certificate_arn))
    error_message = "certificate_arn must be the ARN of an ACM certificate in the region of the load balancer (variable region)."
  }
}

variable "client_cidrs" {
  description = "IPv4 ranges that may reach the API."
  type        = list(string)
  default     = ["0.0.0.0/0"]

  validation {
    condition     = length(var.client_cidrs) > 0 && alltrue([for cidr in var.client_cidrs : can(cidrnetmask(cidr))])
    error_message = "client_cidrs must be at least one IPv4 range like 203.0.113.0/24."
  }
}

variable "balancer_deletion_protection" {
  description = "Whether AWS refuses to delete the load balancer (fargate)."
  type        = bool
  default     = false
}

# Network

variable "network_mode" {
  description = "\"public\": the orchestrator has a public address ($3.65 a month) and a locked security group. \"private\": no address, VPC endpoints instead (about $44 a month)."
  type        = string
  default     = "public"

  validation {
    condition     = contains(["public", "private"], var.network_mode)
    error_message = "network_mode must be \"public\" or \"private\"."
  }

  validation {
    condition     = var.network_mode == "public" || var.orchestrator_mode == "fargate"
    error_message = "network_mode \"private\" needs orchestrator_mode \"fargate\": without a load balancer nobody could reach a private orchestrator."
  }
}

variable "vpc_cidr" {
  description = "IPv4 range of the network made here, /16 to /24; nothing else is connected to it."
  type        = string
  default     = "10.68.0.0/22"

  validation {
    condition     = can(cidrnetmask(var.vpc_cidr)) && can(regex("/(1[6-9]|2[0-4])$", var.vpc_cidr))
    error_message = "vpc_cidr must be an IPv4 range of /16 to /24, such as 10.68.0.0/22."
  }
}

variable "availability_zones" {
  description = "Two zones of the region; empty for its first two. A new GPU is put into the first: choose one that offers its type. Heeded at the first apply only."
  type        = list(string)
  default     = []

  validation {
    condition     = contains([0, 2], length(distinct(var.availability_zones))) && length(distinct(var.availability_zones)) == length(var.availability_zones)
    error_message = "availability_zones must be two different zones (the load balancer wants two), or empty."
  }

  validation {
    condition     = alltrue([for zone in var.availability_zones : can(regex("^${var.region}[a-z]$", zone))])
    error_message = "availability_zones must lie in region, e.g. us-east-1a and us-east-1b for us-east-1."
  }
}

# GPU instance

variable "gpu_mode" {
  description = "\"existing\": the instance gpu_instance_id. \"new\": one is made from gpu_ami_id."
  type        = string
  default     = "existing"

  validation {
    condition     = contains(["existing", "new"], var.gpu_mode)
    error_message = "gpu_mode must be \"existing\" or \"new\"."
  }
}

variable "gpu_instance_id" {
  description = "The existing GPU instance (gpu_mode existing), e.g. i-0123456789abcdef0. It gets the tag Purpose=GPU-ComfyUI."
  type        = string
  default     = null

  validation {
    condition     = var.gpu_instance_id == null || can(regex("^i-[0-9a-f]{8,17}$", var.gpu_instance_id))
    error_message = "gpu_instance_id must look like i-0123456789abcdef0."
  }

  validation {
    condition     = (var.gpu_instance_id != null) == (var.gpu_mode == "existing")
    error_message = "gpu_instance_id belongs to gpu_mode \"existing\", which needs it; gpu_mode \"new\" makes an instance of its own."
  }
}

variable "gpu_role_name" {
  description = "Role of the existing instance's profile, which gets the adapter's permissions; null if it has no profile: then one is made, and an output says how to attach it."
  type        = string
  default     = null

  validation {
    condition     = var.gpu_role_name == null || var.gpu_mode == "existing"
    error_message = "gpu_role_name belongs to gpu_mode \"existing\"; a new instance gets a role of its own."
  }
}

variable "gpu_ami_id" {
  description = "Image with ComfyUI and the Unified API (gpu_mode new): Ubuntu 22.04 x86 with NVIDIA driver and SSM agent, in this region."
  type        = string
  default     = null

  validation {
    condition     = var.gpu_ami_id == null || can(regex("^ami-[0-9a-f]{8,17}$", var.gpu_ami_id))
    error_message = "gpu_ami_id must look like ami-0123456789abcdef0."
  }

  validation {
    condition     = (var.gpu_ami_id != null) == (var.gpu_mode == "new")
    error_message = "gpu_ami_id belongs to gpu_mode \"new\", which needs it."
  }
}

variable "gpu_instance_type" {
  description = "Type of a new GPU instance. g6e.2xlarge costs $2.24208 an hour while it runs (us-east-1)."
  type        = string
  default     = "g6e.2xlarge"
}

variable "gpu_volume_gb" {
  description = "Root volume of a new GPU instance in GiB, 50 to 16000; $0.08 per GB-month, also while stopped."
  type        = number
  default     = 200

  validation {
    condition     = var.gpu_volume_gb >= 50 && var.gpu_volume_gb <= 16000
    error_message = "gpu_volume_gb must be from 50 to 16000 GiB."
  }
}

variable "gpu_key_name" {
  description = "EC2 key pair of a new GPU instance; null for none: no port is open, and SSM Session Manager needs none."
  type        = string
  default     = null
}

variable "comfyui_api_url" {
  description = "The Unified API as the adapter reaches it on the GPU instance: scheme, host and port."
  type        = string
  default     = "http://localhost:8000"

  validation {
    condition     = can(regex("^https?://[^/ ]+$", var.comfyui_api_url))
    error_message = "comfyui_api_url must be scheme, host and port only, such as http://localhost:8000."
  }
}

variable "comfyui_url" {
  description = "ComfyUI itself as the adapter reaches it: scheme, host and port. Asked how a job ended when the Unified API does not tell; harmless where nobody listens. Empty: not asked."
  type        = string
  default     = "http://localhost:8188"

  validation {
    condition     = can(regex("^(https?://[^/ ]+)?$", var.comfyui_url))
    error_message = "comfyui_url must be scheme, host and port only, such as http://localhost:8188, or empty."
  }
}

variable "adapter_concurrency" {
  description = "Jobs at once on the GPU, 1 to 64; the Unified API serves one."
  type        = number
  default     = 1

  validation {
    condition     = var.adapter_concurrency >= 1 && var.adapter_concurrency <= 64
    error_message = "adapter_concurrency must be from 1 to 64."
  }
}

# Software

variable "lambda_zip" {
  description = "The shutdown Lambda's package, as `make lambda` leaves it."
  type        = string
  default     = "../build/shutdown-gpu-lambda.zip"

  validation {
    condition     = fileexists(var.lambda_zip)
    error_message = "There is no lambda_zip: run `make lambda` first."
  }
}

variable "release_bundle" {
  description = "The release (.tar.gz) with systemd/install.sh, as `make dist` leaves it; it is put on the GPU instance (and on the orchestrator's in mode instance). Null: nothing is installed."
  type        = string
  default     = null

  validation {
    condition     = var.release_bundle == null || (endswith(coalesce(var.release_bundle, "-"), ".tar.gz") && fileexists(coalesce(var.release_bundle, "-")))
    error_message = "release_bundle must be an existing .tar.gz: run `make dist` first."
  }

  validation {
    condition     = var.release_bundle != null || var.orchestrator_mode == "fargate"
    error_message = "orchestrator_mode \"instance\" needs release_bundle: run `make dist` and name its .tar.gz."
  }
}

# Operations

variable "log_level" {
  description = "DEBUG, INFO, WARNING or ERROR."
  type        = string
  default     = "INFO"

  validation {
    condition     = contains(["DEBUG", "INFO", "WARNING", "ERROR"], var.log_level)
    error_message = "log_level must be DEBUG, INFO, WARNING or ERROR."
  }
}

variable "log_retention_days" {
  description = "How long CloudWatch keeps logs. Days, one of 1, 3, 5, 7, 14, 30, 60, 90, 180, 365; $0.03 per GB-month."
  type        = number
  default     = 30

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 180, 365], var.log_retention_days)
    error_message = "log_retention_days must be one of 1, 3, 5, 7, 14, 30, 60, 90, 180, 365."
  }
}

variable "metrics" {
  description = "Whether the services publish metrics of their own: jobs by outcome, times, the GPU's state. $0.30 a month for each that is published in every hour; output metrics_usd_at_most sums them up."
  type        = bool
  default     = true
}

variable "gpu_metrics" {
  description = "Whether the CloudWatch agent is installed beside the adapter and publishes the GPU's utilisation and memory; needs metrics and release_bundle. $0.60 a month if the GPU ran all the time."
  type        = bool
  default     = true
}

variable "alert_emails" {
  description = "Addresses that get alerts; each must confirm a mail from AWS once."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for address in var.alert_emails : can(regex("^[^@ ]+@[^@ ]+$", address))])
    error_message = "alert_emails must be mail addresses."
  }
}

variable "alert_message_age_s" {
  description = "Alert when a task has waited in the queue for so long. Seconds, at least 600: a boot takes 180."
  type        = number
  default     = 3600

  validation {
    condition     = var.alert_message_age_s >= 600
    error_message = "alert_message_age_s must be at least 600 seconds, or every boot is an alert."
  }
}

variable "alert_failure_percent" {
  description = "Alert when so many of the jobs that ended within 15 minutes have failed, if at least 4 ended; needs metrics. Percent, 1 to 100."
  type        = number
  default     = 25

  validation {
    condition     = var.alert_failure_percent >= 1 && var.alert_failure_percent <= 100
    error_message = "alert_failure_percent must be from 1 to 100."
  }
}

variable "alert_gpu_hours" {
  description = "Alert when the GPU instance has been running without a break for so many hours, 1 to 24."
  type        = number
  default     = 8

  validation {
    condition     = var.alert_gpu_hours >= 1 && var.alert_gpu_hours <= 24 && floor(var.alert_gpu_hours) == var.alert_gpu_hours
    error_message = "alert_gpu_hours must be a whole number from 1 to 24."
  }
}

variable "monthly_budget_usd" {
  description = "Alert when the account's bill reaches 80 % of this, or will reach it, in US dollars a month; 0 for no budget."
  type        = number
  default     = 0

  validation {
    condition     = var.monthly_budget_usd >= 0
    error_message = "monthly_budget_usd must not be negative."
  }
}
