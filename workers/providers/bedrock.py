"""Amazon Bedrock's profile: a region is a host, the model stands in the path."""

from __future__ import annotations

from typing import Final

from forebay.contracts.identity import RequestDomain
from forebay.workers.providers import anthropic, openai
from forebay.workers.providers.facts import (
    Body,
    Budget,
    Endpoint,
    Period,
    ProviderProfile,
    Refusals,
    Source,
    Streams,
    Unit,
    Usage,
    Waits,
)

_SDK: Final = Source("PyPI anthropic 2.14.0: anthropic/lib/bedrock")
_API: Final = Source("docs.aws.amazon.com/bedrock/latest/userguide/troubleshooting-api-error-codes")
_THROTTLES: Final = Source("repost.aws/knowledge-center/bedrock-throttling-error")

_MODEL: Final = r"/model/(?P<model>.+)"
_CHAT: Final = r"/(?:invoke|invoke-with-response-stream|converse|converse-stream)"

PROFILE: Final = ProviderProfile(
    name="bedrock",
    title="Amazon Bedrock",
    hosts=(
        "bedrock-runtime.*.amazonaws.com",
        "bedrock-runtime-fips.*.amazonaws.com",
        "bedrock-runtime.*.amazonaws.com.cn",
        "bedrock-mantle.*.api.aws",
        "*.bedrock-runtime.*.vpce.amazonaws.com",
        "*.bedrock-mantle.*.vpce.amazonaws.com",
    ),
    named_by_host=True,
    endpoints=(
        Endpoint(
            path=r"/model/(?P<model>.*embed.*)/invoke",
            domain=RequestDomain.EMBEDDING,
            source=_SDK,
        ),
        Endpoint(path=_MODEL + _CHAT, domain=RequestDomain.CHAT, source=_SDK),
        Endpoint(path=_MODEL + r"/count-tokens", domain=None, source=_API),
        Endpoint(path=r"/guardrail/.*", domain=None, source=_API),
        Endpoint(path=r"/async-invoke(?:/.*)?", domain=None, source=_API, method="GET"),
        *anthropic.CALLS,
        *anthropic.BOOKKEEPING,
        *openai.CALLS,
        *openai.BOOKKEEPING,
    ),
    body=Body(
        models=("model", "modelId"),
        prompts=("system", "messages", "toolConfig", "tools", "prompt", "inputText"),
        bounds=(
            "inferenceConfig.maxTokens",
            "max_tokens",
            "textGenerationConfig.maxTokenCount",
            "max_gen_len",
        ),
        source=Source(
            "docs.aws.amazon.com/de_de/bedrock/latest/APIReference/API_runtime_Converse.html"
        ),
    ),
    usage=Usage(
        places=("usage", "message.usage", "amazon-bedrock-invocationMetrics"),
        inputs=("inputTokens", "inputTokenCount", "input_tokens"),
        more_inputs=("cacheWriteInputTokens", "cache_creation_input_tokens"),
        outputs=("outputTokens", "outputTokenCount", "output_tokens"),
        source=Source("docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage"),
    ),
    refusals=Refusals(
        places=("error",),
        codes=("type", "__type", "code"),
        headers=("x-amzn-errortype", ":exception-type", "exceptiontype", "x-amzn-exceptiontype"),
        overload=frozenset(
            {
                "modelnotreadyexception",
                "serviceunavailableexception",
                "throttledexception",
                "throttlingexception",
                "toomanyrequestsexception",
            }
        ),
        overload_statuses=frozenset({429, 503}),
        account=frozenset({"servicequotaexceededexception"}),
        request=frozenset({"accessdeniedexception", "validationexception"})
        | {"resourcenotfoundexception", "unrecognizedclientexception", "expiredtokenexception"},
        source=_API,
    ),
    waits=Waits(
        budget_texts=(
            (r"too many tokens per day", Budget(Unit.TOKENS, Period.DAY)),
            (r"too many tokens", Budget(Unit.TOKENS, Period.MINUTE)),
            (r"too many requests", Budget(Unit.REQUESTS, Period.MINUTE)),
        ),
        source=_THROTTLES,
    ),
    streams=Streams(
        kinds=("application/vnd.amazon.eventstream", "text/event-stream"),
        last=("message_stop", "messageStop"),
        failed=("error",),
        source=Source("PyPI anthropic 2.14.0: anthropic/lib/bedrock/_stream_decoder.py"),
    ),
    notes=(
        "An error within a stream is a frame whose `:message-type` is `exception`.",
        "Answers carry no limits and mostly no wait: the window finds them.",
    ),
)
