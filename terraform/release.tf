# The software for machines that systemd runs: the bundle of `make dist` in a bucket of its own. A few megabytes: no cost.

locals {
  releases      = var.release_bundle == null ? 0 : 1
  release_hash  = var.release_bundle == null ? null : filesha256(var.release_bundle)
  release_key   = "releases/${coalesce(local.release_hash, "none")}.tar.gz" # by content: a machine never gets half of a newer one
  releases_name = "${local.names.system}-${local.account_id}-${var.region}"
}

resource "aws_s3_bucket" "releases" {
  count = local.releases

  bucket        = local.releases_name
  force_destroy = true # everything in it can be made again
}

resource "aws_s3_bucket_public_access_block" "releases" {
  count = local.releases

  bucket                  = aws_s3_bucket.releases[0].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_object" "release" {
  count = local.releases

  bucket      = aws_s3_bucket.releases[0].id
  key         = local.release_key
  source      = var.release_bundle
  source_hash = local.release_hash

  depends_on = [aws_s3_bucket_public_access_block.releases]
}

data "aws_iam_policy_document" "fetch_release" {
  count = local.releases

  statement {
    sid       = "FetchTheRelease"
    actions   = ["s3:GetObject"]
    resources = ["${aws_s3_bucket.releases[0].arn}/releases/*"]
  }

  # SSM's downloadContent lists what it is told to fetch, to find out whether it is a folder.
  statement {
    sid       = "FindTheRelease"
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.releases[0].arn]
  }
}
