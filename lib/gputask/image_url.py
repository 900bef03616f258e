"""Which addresses of an image a task may carry."""

from __future__ import annotations

import re
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from urllib.parse import urlsplit

from lib.gputask.image_buckets import ALL_BUCKETS, BUCKET, ImageBuckets

MAX_LENGTH = 8192  # characters; a presigned S3 address with a session token needs about 2,500
MAX_KEY_BYTES = 1024  # https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
MAX_HOST_LENGTH = 253  # RFC 1035, section 2.3.4, without the final dot

WEB_PORTS = frozenset({80, 443})

# Brackets hold an IPv6 address and nothing else: no zone, no IPvFuture, nothing before them.
_HOST_AND_PORT = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:]+))(?::[0-9]*)?")
_HOST_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# RFC 3986 knows neither white space nor a backslash; browsers read the latter as a slash, other clients do not.
_NOT_IN_A_URL = re.compile(r"[\s\\]")
# No top-level domain is a number, so such a last label is an attempt at IPv4: inet_aton() also reads
# 2130706433, 0x7f.1 and 0177.0.0.1 (https://url.spec.whatwg.org/#ends-in-a-number-checker).
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")

_MALFORMED = "The host or port of the image address is malformed"

# RFC 6761, RFC 6762 (appendix G), RFC 8375 and ICANN's reservation of .internal.
_PRIVATE_SUFFIXES = (
    "localhost",
    "localdomain",
    "local",
    "internal",
    "intranet",
    "private",
    "corp",
    "home",
    "lan",
    "home.arpa",
    "svc",  # Kubernetes, where the search list adds the cluster's domain
)

# IPv6 networks whose addresses reach the IPv4 address inside them, and the bits below it: RFC 4291, RFC 6052, RFC 3056.
_EMBEDDING = (
    (IPv6Network("::ffff:0:0/96"), 0),
    (IPv6Network("64:ff9b::/96"), 0),
    (IPv6Network("2002::/16"), 80),
)
# For documentation (RFC 9637), which this Python's own table does not know yet.
_DOCUMENTATION = IPv6Network("3fff::/20")
# Called global by Python's table in part, and yet no place of pictures: protocol assignments (RFC 6890; 192.0.0.192 is
# Oracle Cloud's metadata service), 6to4 relays (RFC 7526), and Azure's platform address.
_NOT_PUBLIC = (IPv4Network("192.0.0.0/24"), IPv4Network("192.88.99.0/24"), IPv4Network("168.63.129.16/32"))


@dataclass(frozen=True, slots=True)
class ImageUrlRules:
    """What an operator decides of them.

    Attributes:
        allow_private: also take private, loopback and link-local hosts, in any spelling and at any port.
        ports: that a public host may be asked at.
        buckets: that `s3://` addresses may name.
    """

    allow_private: bool = False
    ports: AbstractSet[int] = WEB_PORTS
    buckets: ImageBuckets = ALL_BUCKETS

    def for_client(self, client_id: str) -> ImageUrlRules:
        """The same, as they hold for this client."""
        return replace(self, buckets=self.buckets.for_client(client_id))


ANY_PUBLIC_IMAGE = ImageUrlRules()


class UnacceptableImageUrl(ValueError):
    """An image address that is refused; the text is a sentence for the client."""


def check_image_url(url: str, rules: ImageUrlRules = ANY_PUBLIC_IMAGE) -> None:
    """Let `s3://bucket/key`, `https://...` and `http://...` pass.

    Names are not resolved: one that points at a private address passes here, so what fetches the image must be kept
    from such addresses by its network as well.

    Args:
        url: as the client wrote it.
        rules: the operator's.

    Raises:
        UnacceptableImageUrl: with the reason.
    """
    if not url:
        raise UnacceptableImageUrl("The image address is empty")
    if len(url) > MAX_LENGTH:
        raise UnacceptableImageUrl(f"The image address is longer than {MAX_LENGTH} characters")
    if _CONTROL.search(url):
        raise UnacceptableImageUrl("The image address contains a control character")
    # The Unified API compares the schemes as they are, so HTTPS:// would wake the GPU only to fail there.
    if url.startswith("s3://"):
        _check_s3(url, rules.buckets)
    elif url.startswith(("https://", "http://")):
        _check_http(url, rules)
    else:
        raise UnacceptableImageUrl("The image address must start with s3://, https:// or http://")


def _check_s3(url: str, buckets: ImageBuckets) -> None:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not BUCKET.fullmatch(bucket):
        raise UnacceptableImageUrl("An s3:// image address must name a bucket: s3://bucket/key")
    if not key:
        raise UnacceptableImageUrl("An s3:// image address must name a key: s3://bucket/key")
    _check_key(key)
    if not buckets.hold(bucket, key):
        raise UnacceptableImageUrl("This service may not fetch from that bucket and prefix; its operator knows which")


def _check_key(key: str) -> None:
    # The Unified API parses the address as a URL and drops these; spaces and '%' mean themselves there, too.
    if "?" in key or "#" in key:
        raise UnacceptableImageUrl("The key in an s3:// image address must not contain '?' or '#'")
    if key.startswith("/"):
        raise UnacceptableImageUrl("The key in an s3:// image address must not begin with a slash")
    if "\\" in key:
        raise UnacceptableImageUrl("The image address contains a backslash")
    # AWS's libraries resolve them on the way, so that they would name an object elsewhere.
    if not {".", ".."}.isdisjoint(key.split("/")):
        raise UnacceptableImageUrl("The key in an s3:// image address must not contain '.' or '..' between slashes")
    if len(key.encode()) > MAX_KEY_BYTES:
        raise UnacceptableImageUrl(f"The key in an s3:// image address is longer than {MAX_KEY_BYTES} bytes")


def _check_http(url: str, rules: ImageUrlRules) -> None:
    if _NOT_IN_A_URL.search(url):
        raise UnacceptableImageUrl("The image address contains white space or a backslash; percent-encode it")
    netloc, port = _netloc_and_port(url)
    if not netloc:
        raise UnacceptableImageUrl("The image address has no host")
    if "@" in netloc:
        raise UnacceptableImageUrl("The image address must not carry a user name or password")
    match = _HOST_AND_PORT.fullmatch(netloc)
    if match is None:
        raise UnacceptableImageUrl(_MALFORMED)
    if match["ipv6"] is not None:
        _check_ipv6(match["ipv6"], allow_private=rules.allow_private)
    else:
        _check_name_or_ipv4(_to_ascii(match["name"]), allow_private=rules.allow_private)
    if port is not None and port not in rules.ports and not rules.allow_private:
        raise UnacceptableImageUrl(f"This service fetches no image from port {port}; use https:// at its usual port")


def _netloc_and_port(url: str) -> tuple[str, int | None]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UnacceptableImageUrl(_MALFORMED) from error
    if port == 0:
        raise UnacceptableImageUrl(_MALFORMED)
    return parts.netloc, port


def _to_ascii(host: str) -> str:
    """The name as a resolver gets it: full-width digits and ideographic dots become plain ones."""
    if len(host) > MAX_HOST_LENGTH:
        raise UnacceptableImageUrl("The host of the image address is too long")
    if host.isascii():
        return host.lower().removesuffix(".")
    try:
        return host.encode("idna").decode("ascii").lower().removesuffix(".")
    except UnicodeError as error:
        raise UnacceptableImageUrl("The host of the image address is not a valid name") from error


def _check_name_or_ipv4(host: str, *, allow_private: bool) -> None:
    if not _HOST_NAME.fullmatch(host):
        raise UnacceptableImageUrl("The host of the image address is not a valid name")
    if allow_private:
        return
    if _NUMERIC_LABEL.fullmatch(host.rpartition(".")[2]):
        _refuse_unless_global(_ipv4(host))
    elif "." not in host or any(host == suffix or host.endswith("." + suffix) for suffix in _PRIVATE_SUFFIXES):
        raise UnacceptableImageUrl("The host of the image address is a private name; use a public one")


def _ipv4(host: str) -> IPv4Address:
    # The other spellings are read differently by different clients (is 010 eight or ten?), so none is taken.
    try:
        return IPv4Address(host)
    except ValueError as error:
        raise UnacceptableImageUrl(
            "An IPv4 address in an image address must be four decimal numbers without leading zeros"
        ) from error


def _check_ipv6(host: str, *, allow_private: bool) -> None:
    try:
        address = IPv6Address(host)
    except ValueError as error:
        raise UnacceptableImageUrl(_MALFORMED) from error
    if not allow_private:
        _refuse_unless_global(address)


def _refuse_unless_global(address: IPv4Address | IPv6Address) -> None:
    if not _is_global(address):
        raise UnacceptableImageUrl("The host of the image address is not a public internet address")


def _is_global(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address):
        for network, bits in _EMBEDDING:
            if address in network:
                return _is_global(IPv4Address((int(address) >> bits) & 0xFFFFFFFF))
        if address.is_site_local or address in _DOCUMENTATION:
            return False
    elif any(address in network for network in _NOT_PUBLIC):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved
