"""Counts the words of a text in S3 and writes the result beside it.

The event names `bucket` and `key`; the result goes to `<key>.words.json`. boto3 is not in the zip: as on AWS, the runtime has it. Which
S3 it talks to is not the function's business either: the SDK reads AWS_ENDPOINT_URL_S3, and on AWS there is none.
"""

import json
import re
from collections import Counter

import boto3

s3 = boto3.client("s3")  # made once per environment, used by every invocation


def handler(event, context):
    """Lambda calls this."""
    bucket, key = event["bucket"], event["key"]
    text = s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode("utf-8")
    words = Counter(re.findall(r"\w+", text.lower()))
    result = {"words": words.total(), "different": len(words), "most": words.most_common(3)}
    target = f"{key}.words.json"
    s3.put_object(Bucket=bucket, Key=target, Body=json.dumps(result).encode(), ContentType="application/json")
    print(f"s3://{bucket}/{key}: {result['words']} words")
    return {"result": f"s3://{bucket}/{target}", **result}
