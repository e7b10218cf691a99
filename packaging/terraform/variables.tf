variable "name" {
  description = "Name of the resources"
  type        = string
  default     = "portcullis"
}

variable "security_vpc_id" {
  description = "VPC of the load balancer and the appliances"
  type        = string
}

variable "load_balancer_subnet_ids" {
  description = "Subnets of the load balancer, one for each availability zone"
  type        = list(string)
}

variable "appliance_subnet_ids" {
  description = "Subnets of the appliances, in the same availability zones, apart from those of the load balancer"
  type        = list(string)
}

variable "application_vpc_id" {
  description = "VPC to protect"
  type        = string
}

variable "endpoint_subnet_ids" {
  description = "Empty subnets of the VPC to protect, one for each availability zone with applications"
  type        = list(string)
}

variable "package_url" {
  description = "Address of the Debian package, which the appliances can reach"
  type        = string
  validation {
    condition     = can(regex("^https://[^\\s'\"\\\\$`]+\\.deb$", var.package_url))
    error_message = "The address must begin with https:// and end with .deb."
  }
}

variable "package_sha256" {
  description = "SHA-256 of the package"
  type        = string
  validation {
    condition     = can(regex("^[0-9a-f]{64}$", var.package_sha256))
    error_message = "64 hexadecimal digits are expected."
  }
}

variable "configuration" {
  description = "Text of portcullis.toml; without it, the packaged one with the load balancer's subnets as sources"
  type        = string
  default     = ""
  sensitive   = true
  # User data has at most 16384 bytes: this, and the commands around it.
  validation {
    condition     = length(base64encode(var.configuration)) <= 14800
    error_message = "The configuration must have at most 11100 bytes."
  }
}

variable "image_id" {
  description = "Image of the appliances; without it, the newest Debian 12 for amd64"
  type        = string
  default     = ""
}

variable "instance_type" {
  description = "Type of the appliances"
  type        = string
  default     = "c7i.large"
}

variable "key_name" {
  description = "Key pair of the appliances; none without it. The security group admits no SSH"
  type        = string
  default     = null
}

variable "appliances" {
  description = "Number of appliances"
  type        = number
  default     = 2
  validation {
    condition     = var.appliances >= 1 && var.appliances <= 100
    error_message = "1 to 100 appliances are possible."
  }
}

variable "cross_zone" {
  description = "Whether each zone's endpoint reaches the appliances of all zones"
  type        = bool
  default     = true
}

variable "failover" {
  description = "Whether the flows of an appliance that is unhealthy or deregistered move to others: rebalance or no_rebalance"
  type        = string
  default     = "no_rebalance"
  validation {
    condition     = contains(["rebalance", "no_rebalance"], var.failover)
    error_message = "The values are rebalance and no_rebalance."
  }
}

variable "deregistration_delay" {
  description = "Seconds until a deregistered appliance loses its flows"
  type        = number
  default     = 300
}
