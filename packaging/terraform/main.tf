# portcullis behind a Gateway Load Balancer, as docs/GWLB.md describes: appliances, load balancer,
# endpoint service and endpoints. The module changes no route: part 4 of that page diverts traffic.

data "aws_subnet" "load_balancer" {
  for_each = toset(var.load_balancer_subnet_ids)
  id       = each.value
}

data "aws_ssm_parameter" "image" {
  count = var.image_id == "" ? 1 : 0
  name  = "/aws/service/debian/release/12/latest/amd64"
}

locals {
  # Tunnels and health checks come from these prefixes alone.
  sources = sort([for subnet in data.aws_subnet.load_balancer : subnet.cidr_block])
}

resource "aws_security_group" "appliance" {
  name_prefix = "${var.name}-"
  description = "portcullis: tunnels and health checks of the load balancer"
  vpc_id      = var.security_vpc_id

  ingress {
    description = "GENEVE"
    protocol    = "udp"
    from_port   = 6081
    to_port     = 6081
    cidr_blocks = local.sources
  }

  ingress {
    description = "health checks"
    protocol    = "tcp"
    from_port   = 8080
    to_port     = 8080
    cidr_blocks = local.sources
  }

  # Returned packets keep both UDP ports, so that connection tracking knows no request for them.
  egress {
    description = "GENEVE"
    protocol    = "udp"
    from_port   = 6081
    to_port     = 6081
    cidr_blocks = local.sources
  }

  egress {
    description = "the package"
    protocol    = "tcp"
    from_port   = 443
    to_port     = 443
    cidr_blocks = ["0.0.0.0/0"]
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_launch_template" "appliance" {
  name_prefix            = "${var.name}-"
  image_id               = var.image_id == "" ? data.aws_ssm_parameter.image[0].value : var.image_id
  instance_type          = var.instance_type
  key_name               = var.key_name
  vpc_security_group_ids = [aws_security_group.appliance.id]

  metadata_options {
    http_endpoint = "enabled"
    http_tokens   = "required"
  }

  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      volume_type           = "gp3"
      volume_size           = 16
      encrypted             = true
      delete_on_termination = true
    }
  }

  tag_specifications {
    resource_type = "instance"
    tags = {
      Name = var.name
    }
  }

  user_data = base64encode(templatefile("${path.module}/user-data.sh.tftpl", {
    package_url    = var.package_url
    package_sha256 = var.package_sha256
    configuration  = base64encode(var.configuration)
    sources        = join(", ", [for source in local.sources : "\"${source}\""])
  }))
}

resource "aws_autoscaling_group" "appliance" {
  name_prefix         = "${var.name}-"
  min_size            = var.appliances
  max_size            = var.appliances + 1
  desired_capacity    = var.appliances
  vpc_zone_identifier = var.appliance_subnet_ids
  target_group_arns   = [aws_lb_target_group.appliance.arn]
  # An appliance that drains, or whose table is full, answers 503 and serves its sessions. With the
  # load balancer's health checks (ELB), the group would end it and all of them.
  health_check_type = "EC2"

  launch_template {
    id      = aws_launch_template.appliance.id
    version = aws_launch_template.appliance.latest_version
  }

  # A change of the template replaces one appliance after another. A new one starts before an old
  # one ends; the refresh waits for the warm-up, and does not look at the load balancer's health.
  instance_refresh {
    strategy = "Rolling"
    preferences {
      min_healthy_percentage = 100
      max_healthy_percentage = 150
      instance_warmup        = 300
    }
  }
}

resource "aws_lb" "this" {
  name                             = var.name
  load_balancer_type               = "gateway"
  subnets                          = var.load_balancer_subnet_ids
  enable_cross_zone_load_balancing = var.cross_zone
}

resource "aws_lb_target_group" "appliance" {
  name                 = var.name
  protocol             = "GENEVE"
  port                 = 6081
  vpc_id               = var.security_vpc_id
  target_type          = "instance"
  deregistration_delay = var.deregistration_delay

  health_check {
    protocol            = "HTTP"
    port                = "8080"
    path                = "/"
    interval            = 10
    healthy_threshold   = 2
    unhealthy_threshold = 3
    matcher             = "200"
  }

  # AWS requires the two to be equal.
  target_failover {
    on_deregistration = var.failover
    on_unhealthy      = var.failover
  }
}

resource "aws_lb_listener" "this" {
  load_balancer_arn = aws_lb.this.arn

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.appliance.arn
  }
}

resource "aws_vpc_endpoint_service" "this" {
  acceptance_required        = false
  gateway_load_balancer_arns = [aws_lb.this.arn]
}

resource "aws_vpc_endpoint" "application" {
  for_each          = toset(var.endpoint_subnet_ids)
  vpc_endpoint_type = "GatewayLoadBalancer"
  service_name      = aws_vpc_endpoint_service.this.service_name
  vpc_id            = var.application_vpc_id
  subnet_ids        = [each.value]
  depends_on        = [aws_lb_listener.this]
}
