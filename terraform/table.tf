# The task table: the only truth. $0.625 per million writes, $0.125 per million reads; a task costs about a dozen.
resource "aws_dynamodb_table" "tasks" {
  name                        = local.names.table
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "task_id"
  deletion_protection_enabled = var.table_deletion_protection

  attribute {
    name = "task_id"
    type = "S"
  }

  attribute {
    name = "status"
    type = "S"
  }

  attribute {
    name = "created_at"
    type = "N"
  }

  # Every write of a projected attribute is paid twice: what decisions need, never the request body.
  global_secondary_index {
    name            = local.names.index
    hash_key        = "status"
    range_key       = "created_at"
    projection_type = "INCLUDE"
    non_key_attributes = [
      "updated_at",
      "job_type",
      "client_id",
      "queued_at",
      "sends",
      "claimed_at",
      "lease_until",
      "worker",
      "attempt",
      "comfy_job_id",
      "finished_at",
      "error_code",
    ]
  }

  ttl {
    attribute_name = "expires_at"
    enabled        = true
  }

  # $0.20 per GB-month; a task takes about 2 KB for a week.
  point_in_time_recovery {
    enabled = var.table_point_in_time_recovery
  }
}
