# Both GPU modes, both orchestrator modes, both network modes.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  gpu_instance_id = "i-0123456789abcdef0"
  certificate_arn = "arn:aws:acm:us-east-1:123456789012:certificate/12345678-1234-1234-1234-123456789012"
  domain_name     = "gpu.example.com"
  api_key_hashes  = { frontend = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae" }
  release_bundle  = "tests/empty.tar.gz"
}

run "by_default_fargate_in_public_behind_https_for_an_existing_gpu" {
  assert {
    condition     = aws_ecs_service.orchestrator[0].network_configuration[0].assign_public_ip && length(aws_vpc_endpoint.interface) == 0 && length(aws_subnet.private) == 0
    error_message = "public, without endpoints that cost"
  }
  assert {
    condition     = aws_vpc_security_group_ingress_rule.orchestrator[0].referenced_security_group_id == aws_security_group.balancer[0].id && length(aws_vpc_security_group_ingress_rule.orchestrator_clients) == 0
    error_message = "only the load balancer reaches the orchestrator"
  }
  assert {
    condition     = toset([for rule in aws_vpc_security_group_ingress_rule.balancer : rule.from_port]) == toset([80, 443]) && alltrue([for rule in aws_vpc_security_group_ingress_rule.balancer : rule.from_port == rule.to_port && rule.ip_protocol == "tcp"])
    error_message = "and only 80 and 443 the load balancer"
  }
  assert {
    condition     = aws_lb_listener.https[0].certificate_arn == var.certificate_arn && aws_lb_listener.http[0].default_action[0].redirect[0].protocol == "HTTPS"
    error_message = "HTTPS only"
  }
  assert {
    condition     = aws_lb_target_group.orchestrator[0].deregistration_delay == "30" && aws_lb_target_group.orchestrator[0].health_check[0].path == "/health"
    error_message = "target group"
  }
  assert {
    condition     = aws_ecs_task_definition.orchestrator[0].cpu == "256" && aws_ecs_task_definition.orchestrator[0].runtime_platform[0].cpu_architecture == "ARM64"
    error_message = "the smallest ARM task"
  }
  assert {
    condition     = length(aws_instance.gpu) == 0 && aws_ec2_tag.gpu[0].key == "Purpose" && aws_ec2_tag.gpu[0].value == "GPU-ComfyUI"
    error_message = "the existing instance is tagged, none is made"
  }
  assert {
    condition     = length(aws_acm_certificate.main) == 0 && length(aws_route53_record.balancer) == 0 && length(aws_instance.orchestrator) == 0
    error_message = "nothing that was not asked for"
  }
  assert {
    condition     = aws_ssm_parameter.api_keys[0].type == "SecureString" && aws_ssm_parameter.api_keys[0].value == "frontend:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
    error_message = "hashes, as the orchestrator reads them"
  }
  assert {
    condition     = one(jsondecode(aws_ecs_task_definition.orchestrator[0].container_definitions)).secrets == [{ name = "API_KEYS", valueFrom = aws_ssm_parameter.api_keys[0].arn }]
    error_message = "and never in the task definition"
  }
  assert {
    condition     = length(aws_ssm_parameter.api_keys[0].value) < 4096 && aws_ssm_parameter.api_keys[0].tier == "Intelligent-Tiering"
    error_message = "free while it is small"
  }
}

run "clients_name_no_object_of_s3_unless_it_is_allowed" {
  assert {
    condition     = contains(one(jsondecode(aws_ecs_task_definition.orchestrator[0].container_definitions)).environment, { name = "IMAGE_BUCKETS", value = "none" })
    error_message = "the GPU fetches by its own role, whoever asks"
  }
}

run "the_buckets_that_are_allowed_are_what_the_orchestrator_is_told" {
  variables {
    image_buckets   = ["my-bucket", "uploads/{client}/"]
    image_url_ports = [8080, 8443]
    max_steps       = 50
  }
  assert {
    condition = length(setintersection(one(jsondecode(aws_ecs_task_definition.orchestrator[0].container_definitions)).environment, [
      { name = "IMAGE_BUCKETS", value = "my-bucket,uploads/{client}/" },
      { name = "IMAGE_URL_PORTS", value = "8080,8443" },
      { name = "MAX_STEPS", value = "50" },
    ])) == 3
    error_message = "in the form of its settings"
  }
}

run "other_keys_are_another_task" {
  variables {
    api_key_hashes = { frontend = "fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9" }
  }
  assert {
    condition     = one(jsondecode(aws_ecs_task_definition.orchestrator[0].container_definitions)).dockerLabels == { "api-keys" = sha256("frontend:fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9") }
    error_message = "which reads them; the one that runs never would"
  }
}

run "the_adapter_is_installed_without_ssh" {
  assert {
    condition     = aws_ssm_association.adapter[0].targets[0].values == tolist(["i-0123456789abcdef0"])
    error_message = "on the GPU instance"
  }
  assert {
    condition     = aws_ssm_association.adapter[0].schedule_expression == "rate(30 minutes)"
    error_message = "tried again after a failure"
  }
  assert {
    condition = alltrue([
      for line in [for name, value in local.adapter_environment : "${name}=${value}"] :
      contains(jsondecode(aws_ssm_document.adapter[0].content).mainSteps[1].inputs.runCommand, line)
    ])
    error_message = "its environment is what Terraform knows"
  }
  assert {
    condition     = strcontains(jsondecode(jsondecode(aws_ssm_document.adapter[0].content).mainSteps[0].inputs.sourceInfo).path, "/${aws_s3_bucket.releases[0].bucket}/${aws_s3_object.release[0].key}")
    error_message = "what is fetched is what was put there"
  }
}

run "without_a_release_nothing_is_installed" {
  variables {
    release_bundle = null
  }
  assert {
    condition     = length(aws_s3_bucket.releases) == 0 && length(aws_ssm_association.adapter) == 0 && output.adapter_environment != ""
    error_message = "by hand then, with the environment from the outputs"
  }
}

run "a_certificate_is_made_and_the_name_recorded" {
  variables {
    certificate_arn = null
    domain_name     = "gpu.example.com"
    route53_zone_id = "Z0123456789ABCDEFGHIJ"
  }
  assert {
    condition     = aws_lb_listener.https[0].certificate_arn == aws_acm_certificate_validation.main[0].certificate_arn && aws_route53_record.certificate[0].name == "_proof.gpu.example.com."
    error_message = "HTTPS with the certificate once it is valid"
  }
  assert {
    condition     = aws_route53_record.balancer[0].name == "gpu.example.com" && output.api_url == "https://gpu.example.com"
    error_message = "the name leads to the load balancer"
  }
}

run "keys_from_a_secret_of_ones_own" {
  variables {
    api_key_hashes = {}
    api_keys_arn   = "arn:aws:secretsmanager:us-east-1:123456789012:secret:gpu-keys-AbCdEf"
  }
  assert {
    condition     = length(aws_ssm_parameter.api_keys) == 0 && one(data.aws_iam_policy_document.api_keys.statement[0].actions) == "secretsmanager:GetSecretValue"
    error_message = "nothing else is stored or read"
  }
  assert {
    condition     = one(one(jsondecode(aws_ecs_task_definition.orchestrator[0].container_definitions)).secrets).valueFrom == var.api_keys_arn
    error_message = "ECS reads the secret"
  }
}

run "private_with_endpoints_and_no_address" {
  variables {
    network_mode = "private"
  }
  assert {
    condition     = !aws_ecs_service.orchestrator[0].network_configuration[0].assign_public_ip && length(aws_vpc_security_group_egress_rule.orchestrator_https) == 0
    error_message = "no way to the internet"
  }
  assert {
    condition     = toset(keys(aws_vpc_endpoint.interface)) == toset(["sqs", "ec2", "ecr.api", "ecr.dkr", "logs", "ssm"]) && toset(keys(aws_vpc_endpoint.gateway)) == toset(["dynamodb", "s3"])
    error_message = "everything it calls has an endpoint"
  }
  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.endpoints_gpu) == 0
    error_message = "for it alone, as an existing GPU is in another network"
  }
  assert {
    condition     = length(aws_route_table.private[0].route) == 0
    error_message = "no route out"
  }
}

run "a_new_gpu_with_no_port_open" {
  variables {
    gpu_mode        = "new"
    gpu_instance_id = null
    gpu_ami_id      = "ami-0123456789abcdef0"
  }
  assert {
    condition     = aws_instance.gpu[0].instance_type == "g6e.2xlarge" && aws_instance.gpu[0].metadata_options[0].http_tokens == "required" && aws_instance.gpu[0].metadata_options[0].http_put_response_hop_limit == 1
    error_message = "type and IMDSv2"
  }
  assert {
    condition     = aws_instance.gpu[0].root_block_device[0].encrypted && aws_instance.gpu[0].root_block_device[0].volume_type == "gp3"
    error_message = "encrypted gp3"
  }
  assert {
    condition     = aws_instance.gpu[0].tags["Purpose"] == "GPU-ComfyUI" && length(aws_ec2_tag.gpu) == 0
    error_message = "tagged, or it could never be started"
  }
  assert {
    condition     = toset(aws_instance.gpu[0].vpc_security_group_ids) == toset([aws_security_group.gpu[0].id]) && length(aws_security_group.gpu[0].ingress) == 0
    error_message = "no inbound port"
  }
  assert {
    condition     = output.gpu_instance_id == aws_instance.gpu[0].id && aws_lambda_function.shutdown.environment[0].variables["GPU_INSTANCE_ID"] == aws_instance.gpu[0].id
    error_message = "everybody means that one"
  }
}

run "a_new_gpu_and_a_private_orchestrator" {
  variables {
    gpu_mode        = "new"
    gpu_instance_id = null
    gpu_ami_id      = "ami-0123456789abcdef0"
    network_mode    = "private"
  }
  assert {
    condition     = aws_instance.gpu[0].subnet_id == aws_subnet.public[0].id && aws_subnet.public[0].map_public_ip_on_launch
    error_message = "the GPU fetches pictures from anywhere, so it keeps its way out"
  }
  assert {
    condition = (
      aws_vpc_security_group_ingress_rule.endpoints_gpu[0].referenced_security_group_id == aws_security_group.gpu[0].id &&
      aws_vpc_security_group_ingress_rule.endpoints_gpu[0].security_group_id == aws_security_group.endpoints[0].id &&
      aws_vpc_security_group_ingress_rule.endpoints_gpu[0].from_port == 443 && aws_vpc_security_group_ingress_rule.endpoints_gpu[0].to_port == 443
    )
    error_message = "but AWS's names lead it to the endpoints, which must let it in"
  }
  assert {
    condition     = !aws_ecs_service.orchestrator[0].network_configuration[0].assign_public_ip
    error_message = "and the orchestrator has none"
  }
}

run "a_new_gpu_and_an_orchestrator_instance" {
  variables {
    gpu_mode          = "new"
    gpu_instance_id   = null
    gpu_ami_id        = "ami-0123456789abcdef0"
    orchestrator_mode = "instance"
    certificate_arn   = null
  }
  assert {
    condition     = aws_instance.gpu[0].tags["Purpose"] == "GPU-ComfyUI" && !contains(keys(aws_instance.orchestrator[0].tags), "Purpose")
    error_message = "only one of the two instances is ever started and stopped"
  }
  assert {
    condition     = strcontains(aws_instance.orchestrator[0].user_data, "GPU_INSTANCE_ID=${aws_instance.gpu[0].id}\n")
    error_message = "and the other one knows which"
  }
}

run "an_existing_role_gets_the_adapters_permissions" {
  variables {
    gpu_role_name = "comfyui-role"
  }
  assert {
    condition     = aws_iam_role_policy.adapter.role == "comfyui-role" && length(aws_iam_role.adapter) == 0 && output.gpu_profile_command == null
    error_message = "attached, not replaced"
  }
  assert {
    condition     = aws_iam_role_policy.adapter_ssm.role == "comfyui-role" && aws_iam_role_policy.adapter_ssm.policy == data.aws_iam_policy.ssm.policy
    error_message = "SSM's are a copy: an attachment that is there already would go with a destroy"
  }
}

run "a_gpu_without_a_profile_is_pointed_out" {
  override_data {
    target = data.aws_instance.gpu[0]
    values = { id = "i-0123456789abcdef0", iam_instance_profile = "" }
  }
  expect_failures = [check.gpu_has_a_profile]
}

run "a_gpu_with_a_profile_whose_role_is_not_named_is_pointed_out" {
  override_data {
    target = data.aws_instance.gpu[0]
    values = { id = "i-0123456789abcdef0", iam_instance_profile = "comfyui" }
  }
  expect_failures = [check.gpu_has_a_profile]
}

run "a_gpu_with_a_profile_whose_role_is_named_is_not" {
  variables {
    gpu_role_name = "comfyui-role"
  }
  override_data {
    target = data.aws_instance.gpu[0]
    values = { id = "i-0123456789abcdef0", iam_instance_profile = "comfyui" }
  }
}

run "an_orchestrator_instance_instead_of_fargate_and_load_balancer" {
  variables {
    orchestrator_mode = "instance"
    certificate_arn   = null
    domain_name       = "gpu.example.com"
    route53_zone_id   = "Z0123456789ABCDEFGHIJ"
  }
  assert {
    condition     = length(aws_lb.main) + length(aws_ecs_service.orchestrator) + length(aws_ecr_repository.orchestrator) + length(aws_acm_certificate.main) == 0
    error_message = "nothing of Fargate is paid for"
  }
  assert {
    condition     = aws_instance.orchestrator[0].instance_type == "t4g.small" && !contains(keys(aws_instance.orchestrator[0].tags), "Purpose")
    error_message = "small, and not mistaken for the GPU"
  }
  assert {
    condition     = alltrue([for rule in aws_vpc_security_group_ingress_rule.orchestrator_clients : contains([80, 443], rule.from_port) && rule.from_port == rule.to_port]) && length(aws_vpc_security_group_ingress_rule.orchestrator) == 0
    error_message = "only Caddy's ports are open"
  }
  assert {
    condition     = strcontains(aws_instance.orchestrator[0].user_data, "reverse_proxy 127.0.0.1:8080") && strcontains(aws_instance.orchestrator[0].user_data, "HOST=127.0.0.1\n")
    error_message = "the orchestrator itself listens on loopback"
  }
  assert {
    condition     = strcontains(aws_instance.orchestrator[0].user_data, "IMAGE_BUCKETS=none\n")
    error_message = "and yet serves others: on loopback an unset IMAGE_BUCKETS would mean all"
  }
  assert {
    condition     = !strcontains(aws_instance.orchestrator[0].user_data, "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae")
    error_message = "user data can be read by everybody on the instance: no hashes in it"
  }
  assert {
    condition     = aws_route53_record.orchestrator[0].records == toset([aws_eip.orchestrator[0].public_ip]) && output.api_url == "https://gpu.example.com"
    error_message = "the name leads to its address"
  }
}

run "an_orchestrator_instance_without_a_name_has_no_open_port" {
  variables {
    orchestrator_mode = "instance"
    certificate_arn   = null
    domain_name       = null
  }
  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.orchestrator_clients) == 0 && length(aws_eip.orchestrator) == 0 && output.api_url == null
    error_message = "keys never travel in the clear"
  }
}

run "a_second_system_in_the_same_account" {
  variables {
    environment   = "staging"
    gpu_role_name = "comfyui-role"
  }
  assert {
    condition     = aws_sqs_queue.tasks.name == "gpu_tasks_queue-staging" && aws_dynamodb_table.tasks.name == "task_store-staging" && aws_lambda_function.shutdown.function_name == "shutdown-gpu-lambda-staging" && aws_cloudwatch_metric_alarm.idle.alarm_name == "QueueEmptyFor30Min-staging"
    error_message = "every name has the suffix"
  }
}
