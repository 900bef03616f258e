# The task queue and its dead-letter queue. $0.40 per million requests, the first million each month free; the long
# polls of a GPU that runs all month make 0.13 million.

resource "aws_sqs_queue" "tasks" {
  name                       = local.names.queue
  visibility_timeout_seconds = var.visibility_timeout_s
  receive_wait_time_seconds  = 20
  message_retention_seconds  = var.queue_retention_s
  max_message_size           = 262144 # the orchestrator refuses what would not fit
  sqs_managed_sse_enabled    = true

  # The table counts attempts and fails a task at its third; the queue's own limit is the net under that.
  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead_letters.arn
    maxReceiveCount     = var.max_receive_count
  })
}

# A dead letter keeps the time it was first sent (standard queue), so its retention must exceed the source's.
resource "aws_sqs_queue" "dead_letters" {
  name                      = local.names.dead_letters
  message_retention_seconds = 1209600
  sqs_managed_sse_enabled   = true
}

resource "aws_sqs_queue_redrive_allow_policy" "dead_letters" {
  queue_url = aws_sqs_queue.dead_letters.id

  redrive_allow_policy = jsonencode({
    redrivePermission = "byQueue"
    sourceQueueArns   = [aws_sqs_queue.tasks.arn]
  })
}

data "aws_iam_policy_document" "queue" {
  for_each = { tasks = aws_sqs_queue.tasks.arn, dead_letters = aws_sqs_queue.dead_letters.arn }

  statement {
    sid       = "OnlyOverTls"
    effect    = "Deny"
    actions   = ["sqs:*"]
    resources = [each.value]

    principals {
      type        = "*"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_sqs_queue_policy" "tasks" {
  queue_url = aws_sqs_queue.tasks.id
  policy    = data.aws_iam_policy_document.queue["tasks"].json
}

resource "aws_sqs_queue_policy" "dead_letters" {
  queue_url = aws_sqs_queue.dead_letters.id
  policy    = data.aws_iam_policy_document.queue["dead_letters"].json
}
