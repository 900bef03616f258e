# A small network of its own, free but for what is said. The GPU instance need not be in it: queue and table are all the
# two sides share.

data "aws_availability_zones" "available" {
  state = "available"

  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }

  # This zone of us-east-1 has neither Fargate nor the newer instance types. Named by id: its letter differs by account.
  exclude_zone_ids = ["use1-az3"]
}

locals {
  is_private = var.network_mode == "private"
  is_fargate = var.orchestrator_mode == "fargate"
  zones      = length(var.availability_zones) > 0 ? var.availability_zones : slice(data.aws_availability_zones.available.names, 0, 2)

  private_count = local.is_private ? 2 : 0
}

resource "aws_vpc" "main" {
  cidr_block           = var.vpc_cidr
  enable_dns_support   = true
  enable_dns_hostnames = true

  tags = { Name = local.names.system }
}

# Nothing uses it, and nothing shall by mistake.
resource "aws_default_security_group" "main" {
  vpc_id = aws_vpc.main.id
}

resource "aws_internet_gateway" "main" {
  vpc_id = aws_vpc.main.id

  tags = { Name = local.names.system }
}

resource "aws_subnet" "public" {
  count = 2

  vpc_id                  = aws_vpc.main.id
  availability_zone       = local.zones[count.index]
  cidr_block              = cidrsubnet(var.vpc_cidr, 2, count.index)
  map_public_ip_on_launch = true

  tags = { Name = "${local.names.system}-public-${count.index}" }

  # A zone that is impaired drops out of the list, and the others move up: that must not replace subnets, and with them a new
  # GPU and its models.
  lifecycle {
    ignore_changes = [availability_zone]
  }
}

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.main.id

  route {
    cidr_block = "0.0.0.0/0"
    gateway_id = aws_internet_gateway.main.id
  }

  tags = { Name = "${local.names.system}-public" }
}

resource "aws_route_table_association" "public" {
  count = 2

  subnet_id      = aws_subnet.public[count.index].id
  route_table_id = aws_route_table.public.id
}

resource "aws_subnet" "private" {
  count = local.private_count

  vpc_id            = aws_vpc.main.id
  availability_zone = local.zones[count.index]
  cidr_block        = cidrsubnet(var.vpc_cidr, 2, 2 + count.index)

  tags = { Name = "${local.names.system}-private-${count.index}" }

  lifecycle {
    ignore_changes = [availability_zone] # as for the public ones
  }
}

# No route out: what a private orchestrator needs has an endpoint. Rejected: a NAT gateway, $32.85 a month plus traffic, $11
# cheaper, but open to the whole internet.
resource "aws_route_table" "private" {
  count = local.is_private ? 1 : 0

  vpc_id = aws_vpc.main.id

  tags = { Name = "${local.names.system}-private" }
}

resource "aws_route_table_association" "private" {
  count = local.private_count

  subnet_id      = aws_subnet.private[count.index].id
  route_table_id = aws_route_table.private[0].id
}

# Gateway endpoints are free.
resource "aws_vpc_endpoint" "gateway" {
  for_each = toset(["dynamodb", "s3"])

  vpc_id            = aws_vpc.main.id
  service_name      = "com.amazonaws.${var.region}.${each.key}"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = concat([aws_route_table.public.id], aws_route_table.private[*].id)

  tags = { Name = "${local.names.system}-${each.key}" }
}

locals {
  # What the orchestrator calls (sqs, ec2), what Fargate needs to start it (image, logs, API keys).
  endpoint_services = ["sqs", "ec2", "ecr.api", "ecr.dkr", "logs", local.keys_service]
}

# $7.30 each per month and zone. One zone serves both at a cent per GB; two would make the network as available as the
# load balancer, for $43.80 more.
resource "aws_vpc_endpoint" "interface" {
  for_each = local.is_private ? toset(local.endpoint_services) : []

  vpc_id              = aws_vpc.main.id
  service_name        = "com.amazonaws.${var.region}.${each.key}"
  vpc_endpoint_type   = "Interface"
  subnet_ids          = [aws_subnet.private[0].id]
  security_group_ids  = [aws_security_group.endpoints[0].id]
  private_dns_enabled = true

  tags = { Name = "${local.names.system}-${each.key}" }
}

resource "aws_security_group" "endpoints" {
  count = local.is_private ? 1 : 0

  name        = "${local.names.system}-endpoints"
  description = "AWS services as the orchestrator and a new GPU reach them"
  vpc_id      = aws_vpc.main.id
}

resource "aws_vpc_security_group_ingress_rule" "endpoints" {
  count = local.is_private ? 1 : 0

  security_group_id            = aws_security_group.endpoints[0].id
  description                  = "The orchestrator"
  referenced_security_group_id = aws_security_group.orchestrator.id
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
}

# The endpoints' names hold in the whole network: a new GPU is led to them, too, although it has a way out of its own.
resource "aws_vpc_security_group_ingress_rule" "endpoints_gpu" {
  count = local.is_private && local.makes_gpu ? 1 : 0

  security_group_id            = aws_security_group.endpoints[0].id
  description                  = "The GPU instance"
  referenced_security_group_id = aws_security_group.gpu[0].id
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
}
