"""What boto3 makes of being refused. ENDPOINT says where the server is."""

import os

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError


def refused(code, access, secret, token=None):
    kinesis = boto3.client(
        "kinesis",
        endpoint_url=os.environ["ENDPOINT"],
        aws_access_key_id=access,
        aws_secret_access_key=secret,
        aws_session_token=token,
        config=Config(retries={"total_max_attempts": 1}),
    )
    try:
        kinesis.list_shards(StreamName="orders")
        raise AssertionError(f"{access} is let in")
    except ClientError as e:
        error, status = e.response["Error"], e.response["ResponseMetadata"]["HTTPStatusCode"]
        assert error["Code"] == code and status == 400 and error["Message"], e
        return e


refused("InvalidSignatureException", "AKIDADMIN", "wrong")
refused("UnrecognizedClientException", "nobody", "wrong")
refused("UnrecognizedClientException", "ASIASESSION", "session/+secret", "wrong")
denied = refused("AccessDeniedException", "AKIDWRITER", "writer")
assert type(denied).__name__ == "AccessDeniedException", type(denied)
assert denied.response["Error"]["Message"] == (
    "User: arn:aws:iam::000000000000:user/writer is not authorized to perform: kinesis:ListShards on resource: "
    "arn:aws:kinesis:us-east-1:000000000000:stream/orders because no identity-based policy allows the kinesis:ListShards action"
), denied
print(f"boto3 {boto3.__version__}: refused as it should be")
