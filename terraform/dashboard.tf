# One page of everything. The first three dashboards of an account are free, then $3 a month.
# NVIDIA's numbers come from the CloudWatch agent on the GPU instance, if it has been set up with nvidia_gpu there.
resource "aws_cloudwatch_dashboard" "main" {
  dashboard_name = local.names.system

  dashboard_body = jsonencode({
    widgets = [
      for index, widget in local.widgets : {
        type   = "metric"
        width  = 12
        height = 6
        x      = index % 2 * 12
        y      = floor(index / 2) * 6
        properties = merge({
          region = var.region
          view   = "timeSeries"
          period = 300
          stat   = "Sum"
        }, widget)
      }
    ]
  })
}

locals {
  widgets = concat([
    {
      title = "Tasks in the queue"
      stat  = "Maximum"
      metrics = [
        ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", aws_sqs_queue.tasks.name, { label = "waiting" }],
        ["AWS/SQS", "ApproximateNumberOfMessagesNotVisible", "QueueName", aws_sqs_queue.tasks.name, { label = "in work" }],
        ["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", aws_sqs_queue.dead_letters.name, { label = "dead letters" }],
      ]
    },
    {
      title = "Tasks sent and done"
      metrics = [
        ["AWS/SQS", "NumberOfMessagesSent", "QueueName", aws_sqs_queue.tasks.name, { label = "sent" }],
        ["AWS/SQS", "NumberOfMessagesDeleted", "QueueName", aws_sqs_queue.tasks.name, { label = "done" }],
      ]
    },
    {
      title   = "Age of the oldest task waiting, seconds"
      stat    = "Maximum"
      metrics = [["AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName", aws_sqs_queue.tasks.name, { label = "oldest" }]]
    },
    {
      # There is a point of the CPU for each five minutes in which the instance ran; the sum over a range is its price.
      title = "GPU instance: dollars spent in each five minutes"
      metrics = [
        [{ expression = "IF(cpu >= 0, ${local.gpu_hour_usd / 12}, 0)", label = "$", id = "dollars" }],
        ["AWS/EC2", "CPUUtilization", "InstanceId", local.gpu_instance_id, { id = "cpu", stat = "Average", visible = false }],
      ]
    },
    {
      title = "GPU utilisation and memory, percent"
      stat  = "Average"
      metrics = [
        [{ expression = "SEARCH('{CWAgent,InstanceId,name,index,arch} MetricName=\"nvidia_smi_utilization_gpu\" InstanceId=\"${local.gpu_instance_id}\"', 'Average')", label = "GPU" }],
        [{ expression = "SEARCH('{CWAgent,InstanceId,name,index,arch} MetricName=\"nvidia_smi_utilization_memory\" InstanceId=\"${local.gpu_instance_id}\"', 'Average')", label = "memory" }],
      ]
    },
    {
      title = "Shutdown Lambda"
      metrics = [
        ["AWS/Lambda", "Invocations", "FunctionName", aws_lambda_function.shutdown.function_name, { label = "looks" }],
        ["AWS/Lambda", "Errors", "FunctionName", aws_lambda_function.shutdown.function_name, { label = "errors" }],
      ]
    },
    ],
    [
      for balancer in aws_lb.main : {
        title = "Answers of the API"
        metrics = [
          for code in ["2XX", "4XX", "5XX"] :
          ["AWS/ApplicationELB", "HTTPCode_Target_${code}_Count", "LoadBalancer", balancer.arn_suffix, { label = code }]
        ]
      }
    ],
    [
      for balancer in aws_lb.main : {
        title   = "Time to answer, seconds (p99)"
        stat    = "p99"
        metrics = [["AWS/ApplicationELB", "TargetResponseTime", "LoadBalancer", balancer.arn_suffix, { label = "p99" }]]
      }
    ],
  )
}
