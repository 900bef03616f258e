# What a month costs in which nobody sends a job. docs/deploying.md shows these numbers; a test compares them.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  gpu_instance_id = "i-0123456789abcdef0"
  domain_name     = "gpu.example.com"
  route53_zone_id = "Z0123456789ABCDEFGHIJ"
  api_key_hashes  = { frontend = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae" }
}

run "fargate" {
  assert {
    condition = output.fixed_costs_usd == {
      alarms               = "1.80"
      dns_zone             = "0.50"
      load_balancer        = "23.73"
      orchestrator_fargate = "10.86"
      total                = "36.89"
    }
    error_message = "the default"
  }
  assert {
    condition     = output.gpu_hour_usd == 2.24208
    error_message = "g6e.2xlarge"
  }
}

run "private" {
  variables {
    network_mode = "private"
  }
  assert {
    condition = output.fixed_costs_usd == {
      alarms               = "1.80"
      dns_zone             = "0.50"
      load_balancer        = "23.73"
      orchestrator_fargate = "7.21"
      total                = "77.04"
      vpc_endpoints        = "43.80"
    }
    error_message = "six endpoints in one zone, and no public address"
  }
}

run "one_task_at_the_most_needs_no_scaling" {
  variables {
    orchestrator_max_tasks = 1
  }
  assert {
    condition     = length(aws_appautoscaling_target.orchestrator) + length(aws_appautoscaling_policy.orchestrator) == 0 && output.fixed_costs_usd["alarms"] == "1.40"
    error_message = "and pays for none of its alarms"
  }
}

run "instance" {
  variables {
    orchestrator_mode = "instance"
    release_bundle    = "tests/empty.tar.gz"
  }
  assert {
    condition = output.fixed_costs_usd == {
      alarms                = "1.10"
      dns_zone              = "0.50"
      orchestrator_instance = "16.55"
      total                 = "18.15"
    }
    error_message = "one small instance"
  }
}

run "new_gpu" {
  variables {
    gpu_mode        = "new"
    gpu_instance_id = null
    gpu_ami_id      = "ami-0123456789abcdef0"
  }
  assert {
    condition     = output.fixed_costs_usd["gpu_volume"] == "16.00" && output.fixed_costs_usd["total"] == "52.89"
    error_message = "its volume comes on top"
  }
}
