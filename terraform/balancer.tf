# The public door (fargate): HTTPS only, as the API keys travel in a header.
# $16.43 a month + LCU (below one here: up to $5.84), and two public addresses at $3.65 each.

resource "aws_lb" "main" {
  count = local.is_fargate ? 1 : 0

  name                       = local.names.orchestrator
  load_balancer_type         = "application"
  subnets                    = aws_subnet.public[*].id
  security_groups            = [aws_security_group.balancer[0].id]
  idle_timeout               = 60 # uvicorn keeps connections for 75 s, or a closing one would be a 502
  drop_invalid_header_fields = true
  enable_deletion_protection = var.balancer_deletion_protection

  depends_on = [aws_internet_gateway.main] # AWS makes none that faces an internet which is not there
}

resource "aws_lb_target_group" "orchestrator" {
  count = local.is_fargate ? 1 : 0

  name                 = local.names.orchestrator
  vpc_id               = aws_vpc.main.id
  target_type          = "ip"
  protocol             = "HTTP"
  port                 = local.orchestrator_port
  deregistration_delay = 30 # no request takes a second; the default of 300 only slows deployments

  # Liveness, calling no AWS: were it /ready, an outage of DynamoDB would make the balancer kill every task in turn.
  health_check {
    path                = "/health"
    matcher             = "200"
    interval            = 15
    timeout             = 5
    healthy_threshold   = 2
    unhealthy_threshold = 3
  }
}

resource "aws_lb_listener" "https" {
  count = local.is_fargate ? 1 : 0

  load_balancer_arn = aws_lb.main[0].arn
  protocol          = "HTTPS"
  port              = 443
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"
  certificate_arn   = local.makes_certificate ? aws_acm_certificate_validation.main[0].certificate_arn : var.certificate_arn

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.orchestrator[0].arn
  }
}

resource "aws_lb_listener" "http" {
  count = local.is_fargate ? 1 : 0

  load_balancer_arn = aws_lb.main[0].arn
  protocol          = "HTTP"
  port              = 80

  default_action {
    type = "redirect"

    redirect {
      protocol    = "HTTPS"
      port        = "443"
      status_code = "HTTP_301"
    }
  }
}

resource "aws_security_group" "balancer" {
  count = local.is_fargate ? 1 : 0

  name        = "${local.names.orchestrator}-balancer"
  description = "Clients to the load balancer"
  vpc_id      = aws_vpc.main.id
}

resource "aws_vpc_security_group_ingress_rule" "balancer" {
  for_each = local.is_fargate ? { for pair in setproduct(var.client_cidrs, [80, 443]) : "${pair[0]}:${pair[1]}" => pair } : {}

  security_group_id = aws_security_group.balancer[0].id
  description       = "Clients"
  cidr_ipv4         = each.value[0]
  ip_protocol       = "tcp"
  from_port         = each.value[1]
  to_port           = each.value[1]
}

resource "aws_vpc_security_group_egress_rule" "balancer" {
  count = local.is_fargate ? 1 : 0

  security_group_id            = aws_security_group.balancer[0].id
  description                  = "The orchestrator, and nothing else"
  referenced_security_group_id = aws_security_group.orchestrator.id
  ip_protocol                  = "tcp"
  from_port                    = local.orchestrator_port
  to_port                      = local.orchestrator_port
}

locals {
  makes_certificate = local.is_fargate && var.certificate_arn == null

  # One name, so one record proves it.
  certificate_proof = local.makes_certificate ? tolist(aws_acm_certificate.main[0].domain_validation_options)[0] : null
}

# A zone that does not hold the name, or that the world does not see, would leave the certificate waiting for its proof: 75
# minutes, and then an error that says neither.
data "aws_route53_zone" "main" {
  count = var.route53_zone_id != null ? 1 : 0

  zone_id = var.route53_zone_id

  lifecycle {
    postcondition {
      condition     = self.private_zone != true && endswith(".${var.domain_name}", ".${trimsuffix(self.name, ".")}")
      error_message = "domain_name ${var.domain_name} does not lie in the public zone route53_zone_id, which is ${self.name}${self.private_zone == true ? " and private" : ""}: nobody would find the API there, nor the certificate's proof."
    }
  }
}

resource "aws_acm_certificate" "main" {
  count = local.makes_certificate ? 1 : 0

  domain_name       = var.domain_name
  validation_method = "DNS"

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_route53_record" "certificate" {
  count = local.makes_certificate ? 1 : 0

  zone_id         = var.route53_zone_id
  name            = local.certificate_proof.resource_record_name
  type            = local.certificate_proof.resource_record_type
  records         = [local.certificate_proof.resource_record_value]
  ttl             = 60
  allow_overwrite = true
}

resource "aws_acm_certificate_validation" "main" {
  count = local.makes_certificate ? 1 : 0

  certificate_arn         = aws_acm_certificate.main[0].arn
  validation_record_fqdns = [aws_route53_record.certificate[0].fqdn]
}

resource "aws_route53_record" "balancer" {
  count = local.is_fargate && var.route53_zone_id != null ? 1 : 0

  zone_id = var.route53_zone_id
  name    = var.domain_name
  type    = "A"

  alias {
    name                   = aws_lb.main[0].dns_name
    zone_id                = aws_lb.main[0].zone_id
    evaluate_target_health = false
  }
}
