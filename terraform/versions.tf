terraform {
  # 1.9: a variable's validation may look at other variables.
  required_version = ">= 1.9"

  # The next major version may read the same text otherwise: it has to be tried first.
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.80, < 7"
    }
  }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = local.tags
  }

  # AWS_ENDPOINT_URL alone redirects the provider. An emulator has no metadata service, and what it does not support it
  # refuses for ever: the usual 25 tries would take minutes each. A few are for a connection that breaks on a busy machine.
  skip_credentials_validation = var.emulated
  skip_metadata_api_check     = var.emulated
  s3_use_path_style           = var.emulated
  max_retries                 = var.emulated ? 3 : 25
}

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}
