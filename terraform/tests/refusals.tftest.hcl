# What is wrong is refused at plan, with a sentence.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  gpu_instance_id = "i-0123456789abcdef0"
  certificate_arn = "arn:aws:acm:us-east-1:123456789012:certificate/12345678-1234-1234-1234-123456789012"
  domain_name     = "gpu.example.com"
  api_key_hashes  = { frontend = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae" }
}

# Mistakes that do not hide each other share a plan; each must be reported.
run "numbers_that_do_not_fit_together" {
  command = plan
  variables {
    heartbeat_s        = 150     # one missed renewal would lose the task
    job_deadline_s     = 1800    # rule B would be first
    worker_grace_s     = 60      # stopped while it boots
    hold_s             = 20000   # above hold_max_s
    force_stop_after_s = 60      # an instance that shuts down is cut off
    queue_retention_s  = 1209600 # a dead letter is forgotten on arrival
    max_receive_count  = 3       # the queue gives up before the table

    orchestrator_memory_mb = 1536 # between two of Fargate's sizes
  }
  expect_failures = [
    var.heartbeat_s,
    var.job_deadline_s,
    var.worker_grace_s,
    var.hold_s,
    var.force_stop_after_s,
    var.queue_retention_s,
    var.max_receive_count,
    var.orchestrator_memory_mb,
  ]
}

run "things_out_of_their_range_or_form" {
  command = plan
  variables {
    idle_s                     = 2000
    visibility_timeout_s       = 10
    region                     = "Virginia"
    environment                = "Production!"
    orchestrator_cpu           = 300
    orchestrator_instance_type = "t3.small"
    client_cidrs               = ["everybody"]
    vpc_cidr                   = "10.0.0.0/28"
    comfyui_api_url            = "http://localhost:8000/api"
    comfyui_url                = "localhost:8188"
    cors_origins               = ["app.example.com"]
    image_buckets              = ["my-bucket/prefix"] # "prefix-private/" begins so, too
    image_url_ports            = [0]
    max_steps                  = 7
    max_cfg                    = 101
    max_prompt                 = 0
    log_retention_days         = 8
    alert_emails               = ["operator"]
    alert_gpu_hours            = 25
    alert_failure_percent      = 0
    lambda_zip                 = "nowhere.zip"
    domain_name                = null
    route53_zone_id            = "Z0123456789ABCDEFGHIJ" # and no name
  }
  expect_failures = [
    var.idle_s,
    var.visibility_timeout_s,
    var.region,
    var.environment,
    var.orchestrator_cpu,
    var.orchestrator_instance_type,
    var.client_cidrs,
    var.vpc_cidr,
    var.comfyui_api_url,
    var.comfyui_url,
    var.cors_origins,
    var.image_buckets,
    var.image_url_ports,
    var.max_steps,
    var.max_cfg,
    var.max_prompt,
    var.log_retention_days,
    var.alert_emails,
    var.alert_gpu_hours,
    var.alert_failure_percent,
    var.lambda_zip,
    var.route53_zone_id,
  ]
}

run "a_suffix_that_would_end_a_name_in_a_hyphen" {
  command = plan
  variables {
    environment = "staging-"
  }
  expect_failures = [var.environment]
}

run "a_suffix_that_would_put_two_hyphens_into_a_name" {
  command = plan
  variables {
    environment = "a--b"
  }
  expect_failures = [var.environment]
}

run "a_name_of_another_zone" {
  command = plan
  variables {
    certificate_arn = null
    domain_name     = "gpu.notexample.com"
    route53_zone_id = "Z0123456789ABCDEFGHIJ"
  }
  expect_failures = [data.aws_route53_zone.main[0]]
}

run "a_certificate_without_the_name_it_is_for" {
  command = plan
  variables {
    domain_name = null
  }
  expect_failures = [var.certificate_arn]
}

run "no_certificate_no_instance_and_a_key_instead_of_its_hash" {
  command = plan
  variables {
    certificate_arn    = null
    gpu_instance_id    = null
    availability_zones = ["us-east-1a"]
    api_key_hashes     = { frontend = "correct horse battery staple" }
  }
  expect_failures = [var.certificate_arn, var.gpu_instance_id, var.availability_zones, aws_ssm_parameter.api_keys[0]]
}

run "a_name_without_a_zone_no_image_and_a_key_instead_of_a_secrets_name" {
  command = plan
  variables {
    certificate_arn    = null
    domain_name        = "gpu.example.com"
    gpu_mode           = "new"
    gpu_instance_id    = null
    availability_zones = ["eu-west-1a", "eu-west-1b"]
    api_key_hashes     = {}
    api_keys_arn       = "correct horse battery staple"
  }
  expect_failures = [var.certificate_arn, var.gpu_ami_id, var.availability_zones, var.api_keys_arn]
}

run "a_certificate_of_another_region_no_keys_at_all_and_a_message_forgotten_before_its_task" {
  command = plan
  variables {
    task_max_age_s  = 345600
    certificate_arn = "arn:aws:acm:eu-west-1:123456789012:certificate/12345678-1234-1234-1234-123456789012"
    api_key_hashes  = {}
  }
  expect_failures = [var.certificate_arn, var.api_keys_arn, var.task_max_age_s]
}

run "a_private_orchestrator_without_a_load_balancer_and_without_software" {
  command = plan
  variables {
    orchestrator_mode = "instance"
    network_mode      = "private"
    certificate_arn   = null
  }
  expect_failures = [var.network_mode, var.release_bundle]
}

run "an_instance_of_another_region" {
  command = plan
  override_data {
    target = data.aws_instances.gpu[0]
    values = { ids = [] }
  }
  override_data {
    target = data.aws_instance.gpu[0]
    values = { id = "i-0123456789abcdef0" }
  }
  expect_failures = [data.aws_instances.gpu[0]]
}
