# What is wrong is refused at plan, with a sentence.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  gpu_instance_id = "i-0123456789abcdef0"
  certificate_arn = "arn:aws:acm:us-east-1:123456789012:certificate/12345678-1234-1234-1234-123456789012"
  api_key_hashes  = { frontend = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae" }
}

run "a_heartbeat_that_may_not_be_missed_once" {
  command = plan
  variables {
    heartbeat_s = 150
  }
  expect_failures = [var.heartbeat_s]
}

run "a_deadline_that_rule_b_would_cut_short" {
  command = plan
  variables {
    job_deadline_s = 1800
  }
  expect_failures = [var.job_deadline_s]
}

run "an_idle_time_the_alarm_cannot_measure" {
  command = plan
  variables {
    idle_s = 2000
  }
  expect_failures = [var.idle_s]
}

run "a_message_that_is_forgotten_before_its_task" {
  command = plan
  variables {
    task_max_age_s = 345600
  }
  expect_failures = [var.task_max_age_s]
}

run "a_dead_letter_that_is_forgotten_on_arrival" {
  command = plan
  variables {
    queue_retention_s = 1209600
  }
  expect_failures = [var.queue_retention_s]
}

run "a_load_balancer_without_a_certificate" {
  command = plan
  variables {
    certificate_arn = null
  }
  expect_failures = [var.certificate_arn]
}

run "a_certificate_to_be_made_without_a_zone" {
  command = plan
  variables {
    certificate_arn = null
    domain_name     = "gpu.example.com"
  }
  expect_failures = [var.certificate_arn]
}

run "a_certificate_of_another_region" {
  command = plan
  variables {
    certificate_arn = "arn:aws:acm:eu-west-1:123456789012:certificate/12345678-1234-1234-1234-123456789012"
  }
  expect_failures = [var.certificate_arn]
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

run "zones_of_another_region" {
  command = plan
  variables {
    availability_zones = ["eu-west-1a", "eu-west-1b"]
  }
  expect_failures = [var.availability_zones]
}

run "one_zone_only" {
  command = plan
  variables {
    availability_zones = ["us-east-1a"]
  }
  expect_failures = [var.availability_zones]
}

run "a_key_instead_of_its_hash" {
  command = plan
  variables {
    api_key_hashes = { frontend = "correct horse battery staple" }
  }
  expect_failures = [var.api_key_hashes]
}

run "a_key_instead_of_the_name_of_a_secret" {
  command = plan
  variables {
    api_key_hashes = {}
    api_keys_arn   = "correct horse battery staple"
  }
  expect_failures = [var.api_keys_arn]
}

run "no_keys_at_all" {
  command = plan
  variables {
    api_key_hashes = {}
  }
  expect_failures = [var.api_keys_arn]
}

run "no_instance_at_all" {
  command = plan
  variables {
    gpu_instance_id = null
  }
  expect_failures = [var.gpu_instance_id]
}

run "a_new_instance_without_an_image" {
  command = plan
  variables {
    gpu_mode        = "new"
    gpu_instance_id = null
  }
  expect_failures = [var.gpu_ami_id]
}

run "a_private_orchestrator_without_a_load_balancer" {
  command = plan
  variables {
    orchestrator_mode = "instance"
    network_mode      = "private"
    certificate_arn   = null
    release_bundle    = "tests/empty.tar.gz"
  }
  expect_failures = [var.network_mode]
}

run "an_orchestrator_instance_without_software" {
  command = plan
  variables {
    orchestrator_mode = "instance"
  }
  expect_failures = [var.release_bundle]
}

run "a_lambda_that_was_never_packed" {
  command = plan
  variables {
    lambda_zip = "nowhere.zip"
  }
  expect_failures = [var.lambda_zip]
}
