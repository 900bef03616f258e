# The GPU instance: the one there is, or a new one. $2.24208 an hour (g6e.2xlarge) while it runs, and nothing but its volume
# while it does not.

locals {
  makes_gpu       = var.gpu_mode == "new"
  gpu_instance_id = local.makes_gpu ? aws_instance.gpu[0].id : data.aws_instance.gpu[0].id

  gpu_instance_arn = "arn:${local.partition}:ec2:${var.region}:${local.account_id}:instance/${local.gpu_instance_id}"
}

# Asked as a list, because that answers with a sentence where the single one only says "no results".
data "aws_instances" "gpu" {
  count = local.makes_gpu ? 0 : 1

  instance_state_names = ["pending", "running", "stopping", "stopped"]

  filter {
    name   = "instance-id"
    values = [var.gpu_instance_id]
  }

  lifecycle {
    postcondition {
      condition     = length(self.ids) == 1
      error_message = "There is no instance ${var.gpu_instance_id} in ${var.region} in this account: is it in another region, or terminated?"
    }
  }
}

data "aws_instance" "gpu" {
  count = local.makes_gpu ? 0 : 1

  instance_id = data.aws_instances.gpu[0].ids[0]
}

# Start and Stop are allowed by this tag.
resource "aws_ec2_tag" "gpu" {
  count = local.makes_gpu ? 0 : 1

  resource_id = data.aws_instance.gpu[0].id
  key         = local.gpu_tag.key
  value       = local.gpu_tag.value
}

resource "aws_instance" "gpu" {
  count = local.makes_gpu ? 1 : 0

  ami                                  = var.gpu_ami_id
  instance_type                        = var.gpu_instance_type
  subnet_id                            = aws_subnet.public[0].id # its public address, $0.005 an hour, is there only while it runs
  vpc_security_group_ids               = [aws_security_group.gpu[0].id]
  iam_instance_profile                 = aws_iam_instance_profile.adapter[0].name
  key_name                             = var.gpu_key_name
  instance_initiated_shutdown_behavior = "stop"

  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1 # an image address must not lead a container to the credentials
  }

  # $0.08 per GB-month, also while stopped: $16 for 200 GB.
  root_block_device {
    volume_type = "gp3"
    volume_size = var.gpu_volume_gb
    encrypted   = true
  }

  tags        = { Name = "${local.names.system}-gpu", (local.gpu_tag.key) = local.gpu_tag.value }
  volume_tags = merge(local.tags, { Name = "${local.names.system}-gpu" })

  lifecycle {
    ignore_changes = [ami] # a newer image must not throw the models away; replace it on purpose (-replace)
  }
}

# Nothing comes in: work is fetched from the queue, people come through SSM.
resource "aws_security_group" "gpu" {
  count = local.makes_gpu ? 1 : 0

  name        = "${local.names.system}-gpu"
  description = "The GPU instance: out only"
  vpc_id      = aws_vpc.main.id
}

resource "aws_vpc_security_group_egress_rule" "gpu" {
  for_each = local.makes_gpu ? toset(["80", "443"]) : []

  security_group_id = aws_security_group.gpu[0].id
  description       = "AWS, packages, and the images of requests"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = tonumber(each.key)
  to_port           = tonumber(each.key)
}
