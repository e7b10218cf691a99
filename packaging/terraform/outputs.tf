output "endpoint_ids" {
  description = "Endpoint of each endpoint subnet, to which the routes lead"
  value       = { for subnet, endpoint in aws_vpc_endpoint.application : subnet => endpoint.id }
}

output "service_name" {
  description = "Name of the endpoint service, for endpoints in other VPCs"
  value       = aws_vpc_endpoint_service.this.service_name
}

output "target_group_arn" {
  description = "Target group, for the health of the appliances"
  value       = aws_lb_target_group.appliance.arn
}
