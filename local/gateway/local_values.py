"""The one table of what a template's parameters and resources are on this machine."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from local.gateway.intrinsics import NO_VALUE, Resolver, TemplateError

REGION = "us-east-1"
ACCOUNT = "000000000000"
STACK = "trading-local"
DOMAIN = "amazonaws.com"

_PSEUDO: Mapping[str, Any] = {
    "AWS::Region": REGION,
    "AWS::AccountId": ACCOUNT,
    "AWS::Partition": "aws",
    "AWS::StackName": STACK,
    "AWS::StackId": f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/{STACK}/local",
    "AWS::URLSuffix": DOMAIN,
    "AWS::NotificationARNs": [],
    "AWS::NoValue": NO_VALUE,
}

# The property that names a resource; the name is made from the logical id where it is not set.
_NAME_PROPERTY = {
    "AWS::Serverless::Function": "FunctionName",
    "AWS::SQS::Queue": "QueueName",
    "AWS::Logs::LogGroup": "LogGroupName",
    "AWS::SNS::Topic": "TopicName",
    "AWS::Serverless::LayerVersion": "LayerName",
}
_ARN = {
    "AWS::Serverless::Function": "arn:aws:lambda:{region}:{account}:function:{name}",
    "AWS::SQS::Queue": "arn:aws:sqs:{region}:{account}:{name}",
    "AWS::Logs::LogGroup": "arn:aws:logs:{region}:{account}:log-group:{name}:*",
    "AWS::SNS::Topic": "arn:aws:sns:{region}:{account}:{name}",
    "AWS::Serverless::LayerVersion": "arn:aws:lambda:{region}:{account}:layer:{name}:1",
}
_API_TYPES = ("AWS::Serverless::HttpApi", "AWS::Serverless::WebSocketApi")


@dataclass(frozen=True, slots=True)
class LocalValues:
    """Values of `Ref` and `Fn::GetAtt`.

    `aws_endpoint` is the URL under which this process serves SQS and @connections to its workers, `public_address`
    the host:port of the APIs.
    """

    template: Mapping[str, Any]
    secrets: Mapping[str, str]
    overrides: Mapping[str, Any]
    aws_endpoint: str
    public_address: str
    parameters: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        parameters = self.template.get("Parameters", {})
        unknown = [name for name in self.overrides if name not in parameters]
        if unknown:
            raise TemplateError(f"The template has no parameter {', '.join(unknown)}.")
        object.__setattr__(self, "parameters", parameters)

    def ref(self, name: str, resolver: Resolver) -> Any:
        """The value of `Ref: name`; TemplateError names what has none here."""
        if name in self.secrets:
            return self.secrets[name]
        if name in _PSEUDO:
            return _PSEUDO[name]
        if name in self.parameters:
            return self._parameter(name)
        return self._resource_ref(name, resolver)

    def attribute(self, name: str, attribute: str, resolver: Resolver) -> Any:
        """The value of `Fn::GetAtt`; TemplateError names what has none here."""
        kind = self._resource(name)["Type"]
        if attribute == "Arn" and kind in _ARN:
            return self.arn(name, resolver)
        if attribute == "QueueName" and kind == "AWS::SQS::Queue":
            return self.name(name, resolver)
        if attribute == "QueueUrl" and kind == "AWS::SQS::Queue":
            return self.queue_url(self.name(name, resolver))
        if attribute == "ApiEndpoint" and kind in _API_TYPES:
            scheme = "https" if kind == "AWS::Serverless::HttpApi" else "wss"
            return f"{scheme}://{name}.execute-api.{REGION}.{DOMAIN}"
        raise TemplateError(f"Fn::GetAtt {name}.{attribute}: {kind} has no such value in the local gateway.")

    def name(self, logical_id: str, resolver: Resolver) -> str:
        """The name of a resource: its own, or one made from the stack and its logical id."""
        resource = self._resource(logical_id)
        given = resource.get("Properties", {}).get(_NAME_PROPERTY[resource["Type"]])
        return f"{STACK}-{logical_id}" if given is None else resolver.resolve(given)

    def arn(self, logical_id: str, resolver: Resolver) -> str:
        """The ARN of a resource."""
        pattern = _ARN[self._resource(logical_id)["Type"]]
        return pattern.format(region=REGION, account=ACCOUNT, name=self.name(logical_id, resolver))

    def queue_url(self, queue_name: str) -> str:
        """The URL of a queue, served by this process."""
        return f"{self.aws_endpoint}/{ACCOUNT}/{queue_name}"

    def localise(self, text: str) -> str:
        """`text` with the AWS address of an API of the template replaced by the one on this machine."""
        for name, resource in self.template.get("Resources", {}).items():
            address = f"{name}.execute-api.{REGION}.{DOMAIN}"
            if address not in text:
                continue
            if resource["Type"] == "AWS::Serverless::WebSocketApi":
                text = text.replace(f"https://{address}", self.aws_endpoint)
                text = text.replace(f"wss://{address}", f"ws://{self.public_address}")
            if resource["Type"] == "AWS::Serverless::HttpApi":
                text = text.replace(f"https://{address}", f"http://{self.public_address}")
        return text

    def _resource_ref(self, name: str, resolver: Resolver) -> str:
        kind = self._resource(name)["Type"]
        if kind in _API_TYPES:
            return name
        if kind == "AWS::SQS::Queue":
            return self.queue_url(self.name(name, resolver))
        if kind in {"AWS::SNS::Topic", "AWS::Serverless::LayerVersion"}:
            return self.arn(name, resolver)
        if kind in _NAME_PROPERTY:
            return self.name(name, resolver)
        raise TemplateError(f"Ref {name}: a resource of type {kind} has no value in the local gateway.")

    def _resource(self, name: str) -> Mapping[str, Any]:
        try:
            return self.template["Resources"][name]
        except KeyError:
            raise TemplateError(f"{name} is neither a parameter nor a resource of the template.") from None

    def _parameter(self, name: str) -> Any:
        declared = self.parameters[name]
        if name in self.overrides:
            value = self.overrides[name]
        elif "Default" in declared:
            value = declared["Default"]
        else:
            raise TemplateError(f"The parameter {name} has no default: gateway.json must set it.")
        if declared["Type"] == "CommaDelimitedList" and isinstance(value, str):
            return [item.strip() for item in value.split(",")] if value else []
        return value
