# The orchestrator without a load balancer: one t4g.small under systemd, TLS by Caddy. $12.26 a month, its address $3.65, its
# volume $0.64. Price of the saving: minutes of 502 at each update, and one zone. Clients repeat with an Idempotency-Key.

locals {
  orchestrator_instances = local.is_fargate ? 0 : 1

  # Without a name there is no certificate, and without that no open port: then SSM port forwarding is the way in.
  is_named_instance = !local.is_fargate && var.domain_name != null
}

data "aws_ssm_parameter" "ubuntu_arm" {
  count = local.is_fargate || var.orchestrator_ami_id != null ? 0 : 1

  name = "/aws/service/canonical/ubuntu/server/24.04/stable/current/arm64/hvm/ebs-gp3/ami-id"
}

resource "aws_instance" "orchestrator" {
  count = local.orchestrator_instances

  ami                         = var.orchestrator_ami_id != null ? var.orchestrator_ami_id : nonsensitive(data.aws_ssm_parameter.ubuntu_arm[0].value)
  instance_type               = var.orchestrator_instance_type
  subnet_id                   = aws_subnet.public[0].id
  vpc_security_group_ids      = [aws_security_group.orchestrator.id]
  iam_instance_profile        = aws_iam_instance_profile.orchestrator[0].name
  user_data_replace_on_change = true # nothing is kept on it; replaced is updated

  user_data = templatefile("${path.module}/templates/orchestrator_user_data.sh.tftpl", {
    region        = var.region
    bundle_uri    = "s3://${local.releases_name}/${local.release_key}"
    sha256        = local.release_hash
    environment   = [for name in sort(keys(local.orchestrator_environment)) : "${name}=${local.orchestrator_environment[name]}"]
    keys_arn      = local.keys_arn
    keys_service  = local.keys_service
    keys_checksum = local.keys_checksum
    domain_name   = var.domain_name
    port          = local.orchestrator_port
  })

  credit_specification {
    cpu_credits = "standard" # never more than its price
  }

  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  root_block_device {
    volume_type = "gp3"
    volume_size = 8
    encrypted   = true
  }

  tags        = { Name = local.names.orchestrator }
  volume_tags = merge(local.tags, { Name = local.names.orchestrator })

  lifecycle {
    ignore_changes = [ami] # not replaced whenever Canonical publishes; with the next release it is
  }

  # Its boot script needs permissions, and the way out.
  depends_on = [
    aws_s3_object.release,
    aws_iam_role_policy.orchestrator,
    aws_iam_role_policy.orchestrator_boot,
    aws_iam_role_policy.orchestrator_metrics,
    aws_route_table_association.public,
    aws_vpc_security_group_egress_rule.orchestrator_https,
    aws_vpc_security_group_egress_rule.orchestrator_packages,
  ]
}

# The address stays when the instance is replaced.
resource "aws_eip" "orchestrator" {
  count = local.is_named_instance ? 1 : 0

  domain   = "vpc"
  instance = aws_instance.orchestrator[0].id

  tags = { Name = local.names.orchestrator }

  depends_on = [aws_internet_gateway.main] # AWS maps no address where there is none
}

resource "aws_route53_record" "orchestrator" {
  count = local.is_named_instance && var.route53_zone_id != null ? 1 : 0

  zone_id = var.route53_zone_id
  name    = var.domain_name
  type    = "A"
  ttl     = 60
  records = [aws_eip.orchestrator[0].public_ip]
}

# 80 redirects, and proves the name to Let's Encrypt.
resource "aws_vpc_security_group_ingress_rule" "orchestrator_clients" {
  for_each = local.is_named_instance ? { for pair in setproduct(var.client_cidrs, [80, 443]) : "${pair[0]}:${pair[1]}" => pair } : {}

  security_group_id = aws_security_group.orchestrator.id
  description       = "Clients"
  cidr_ipv4         = each.value[0]
  ip_protocol       = "tcp"
  from_port         = each.value[1]
  to_port           = each.value[1]
}

resource "aws_vpc_security_group_egress_rule" "orchestrator_packages" {
  count = local.orchestrator_instances

  security_group_id = aws_security_group.orchestrator.id
  description       = "Ubuntu's packages, signed, by HTTP"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 80
  to_port           = 80
}

resource "aws_iam_instance_profile" "orchestrator" {
  count = local.orchestrator_instances

  name = local.names.orchestrator
  role = aws_iam_role.orchestrator.name
}

resource "aws_iam_role_policy" "orchestrator_boot" {
  count = local.orchestrator_instances

  name   = "boot"
  role   = aws_iam_role.orchestrator.id
  policy = data.aws_iam_policy_document.orchestrator_boot[0].json
}

resource "aws_iam_role_policy_attachment" "orchestrator_ssm" {
  count = local.orchestrator_instances

  role       = aws_iam_role.orchestrator.name
  policy_arn = "arn:${local.partition}:iam::aws:policy/AmazonSSMManagedInstanceCore"
}

data "aws_iam_policy_document" "orchestrator_boot" {
  count = local.orchestrator_instances

  source_policy_documents = concat(
    [data.aws_iam_policy_document.api_keys.json],
    data.aws_iam_policy_document.fetch_release[*].json,
  )
}
