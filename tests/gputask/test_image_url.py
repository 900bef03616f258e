from __future__ import annotations

from contextlib import suppress
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.gputask.image_buckets import parse_image_buckets
from lib.gputask.image_url import MAX_LENGTH, ImageUrlRules, UnacceptableImageUrl, check_image_url

PUBLIC = ImageUrlRules()
PRIVATE_ALLOWED = ImageUrlRules(allow_private=True)

ACCEPTED = [
    "s3://bucket/key.png",
    "s3://bucket/a/b/Screenshot 2026-01-02 at 10.00.00\u202fAM.png",
    "s3://bucket/100% of it/%2e%2e/a//b/..c/.d/e..png",
    "s3://Old_Bucket.with.dots/图.png",
    "https://example.com/cat.png",
    "http://example.com",
    "https://example.com:443/a?b=c&d=%20#e",
    "http://example.com:80/",
    "https://example.com:/",
    "https://EXAMPLE.com./cat.png",
    "https://my_bucket.s3.amazonaws.com/cat.png?X-Amz-Signature=0&X-Amz-Security-Token=" + "a" * 2000,
    "https://bücher.example/图.png",
    "https://xn--bcher-kva.example/",
    "https://8.8.8.8/cat.png",
    "https://[2606:4700::1111]/cat.png",
    "https://[64:ff9b::808:808]/",
    "https://[2002:808:808::1]/",
    "https://localhost.example.com/",
    "https://internal.example.com/",
    "https://10.example.com/",
]

MALFORMED = [
    "",
    " ",
    "cat.png",
    "/etc/passwd",
    "file:///etc/passwd",
    "ftp://example.com/cat.png",
    "data:image/png;base64,AAAA",
    "javascript:alert(1)",
    "//example.com/cat.png",
    "HTTPS://example.com/cat.png",
    "S3://bucket/key",
    "s3:/bucket/key",
    "s3://",
    "s3://bucket",
    "s3://bucket/",
    "s3:///key",
    "s3://b/key",
    "s3://user@bucket/key",
    "s3://bucket:80/key",
    "s3://bucket/a\nb",
    "s3://bucket/a\x00b",
    "s3://bucket/a\\b",
    "s3://bucket/\ud800",
    "s3://bucket/" + "k" * 1025,
    "s3://bucket//key",
    "s3://bucket/key?",
    "s3://bucket/key?versionId=1",
    "s3://bucket/#key",
    "s3://bucket/a#b.png",
    "s3://bucket/../other/key",
    "s3://bucket/a/../../key",
    "s3://bucket/./key",
    "s3://bucket/a/..",
    "https://",
    "https:///cat.png",
    "https:example.com",
    "https:/example.com",
    "https://?a",
    "https://#a",
    "https://:443/",
    "https://./",
    "https://../",
    "https://example..com/",
    "https://-example.com/",
    "https://example.com:0/",
    "https://example.com:65536/",
    "https://example.com:http/",
    "https://exam ple.com/",
    "https://example.com/a b",
    " https://example.com/",
    "https://example.com/\t",
    "https://example.com/\r\nHost: other",
    "https://example.com\\@10.0.0.1/",
    "https://example.com/\x7f",
    "https://example.com/\u2028",
    "https://user:password@example.com/",
    "https://@example.com/",
    "https://%6c%6f%63alhost/",
    "https://exa$mple.com/",
    "https://[::1/",
    "https://[example.com]/",
    "https://[v1.example]/",
    "https://a[2606:4700::1111]/",
    "https://[2606:4700::1111]a/",
    "https://[2606:4700::1111%25eth0]/",
    "https://[2606:4700::1111%eth0]/",
    "https://" + "a." * 127 + "com/",
    "https://bücher..example/",
    "https://\u00ad/",
    "https://example.com/" + "a" * MAX_LENGTH,
]

PRIVATE = [
    "http://localhost/",
    "http://LOCALHOST:8188/",
    "http://localhost./",
    "http://api.localhost/",
    "http://ip-10-0-0-1.ec2.internal/",
    "http://metadata.google.internal/",
    "http://printer.local/",
    "http://router.lan/",
    "http://nas.home.arpa/",
    "http://redis:6379/",
    "http://127.0.0.1/",
    "http://127.0.0.1.:80/",
    "http://0.0.0.0/",
    "http://10.1.2.3/",
    "http://172.16.0.1/",
    "http://192.168.0.1/",
    "http://100.64.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://192.0.0.1/",
    "http://192.0.0.9/",
    "http://192.0.0.192/opc/v2/instance/",
    "http://192.88.99.1/",
    "http://168.63.129.16/metadata",
    "http://[::ffff:168.63.129.16]/",
    "http://[64:ff9b::c000:c0]/",
    "http://api.default.svc/",
    "http://198.18.0.1/",
    "http://203.0.113.1/",
    "http://224.0.0.1/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    "http://127.1/",
    "http://127.0.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7F.1/",
    "http://017700000001/",
    "http://0177.0.0.1/",
    "http://127.0.0.01/",
    "http://0/",
    "http://0x/",
    "http://1.2.3.4.5/",
    "http://999.0.0.1/",
    "http://example.1/",
    "http://\uff11\uff12\uff17.0.0.1/",
    "http://127\u30020\u30020\u30021/",
    "http://\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3/",
    "http://[::]/",
    "http://[::1]:8188/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://[fe80::1]/",
    "http://[fc00::1]/",
    "http://[fd00:ec2::254]/",
    "http://[fec0::1]/",
    "http://[ff02::1]/",
    "http://[ff0e::1]/",
    "http://[2001:db8::1]/",
    "http://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/",
    "http://[3fff::1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::FFFF:7F00:1]/",
    "http://[::ffff:0:127.0.0.1]/",
    "http://[::169.254.169.254]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://[64:ff9b:1::808:808]/",
    "http://[2002:7f00:1::]/",
]


@pytest.mark.parametrize("url", ACCEPTED)
def test_addresses_of_public_images_are_taken(url: str) -> None:
    check_image_url(url)
    check_image_url(url, PRIVATE_ALLOWED)


@pytest.mark.parametrize("url", MALFORMED)
def test_what_is_no_address_of_an_image_is_refused_always(url: str) -> None:
    for rules in (PUBLIC, PRIVATE_ALLOWED):
        with pytest.raises(UnacceptableImageUrl) as caught:
            check_image_url(url, rules)
        assert str(caught.value)[0].isupper()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "is empty"),
        ("ftp://example.com/", "must start with s3://, https:// or http://"),
        ("s3://bucket", "must name a key"),
        ("https:///cat.png", "has no host"),
        ("https://me:secret@example.com/", "must not carry a user name or password"),
        ("https://example.com:99999/", "is malformed"),
        ("https://example.com/a b", "white space"),
        ("http://127.1/", "four decimal numbers"),
        ("http://10.0.0.1/", "not a public internet address"),
        ("http://redis/", "a private name"),
        ("https://example.com:8443/", "no image from port 8443"),
        ("s3://bucket/a?b", r"must not contain '\?' or '#'"),
        ("s3://bucket//a", "must not begin with a slash"),
        ("s3://bucket/../a", r"'\.' or '\.\.' between slashes"),
    ],
)
def test_the_refusal_says_what_to_change(url: str, reason: str) -> None:
    with pytest.raises(UnacceptableImageUrl, match=reason):
        check_image_url(url)


@pytest.mark.parametrize("url", PRIVATE)
def test_private_addresses_are_refused_in_every_spelling(url: str) -> None:
    with pytest.raises(UnacceptableImageUrl):
        check_image_url(url)


@pytest.mark.parametrize("url", PRIVATE)
def test_private_addresses_are_taken_where_allowed(url: str) -> None:
    check_image_url(url, PRIVATE_ALLOWED)


@pytest.mark.parametrize("port", [1, 21, 22, 81, 442, 6379, 8188, 8443, 65535])
def test_a_public_host_is_asked_at_the_webs_ports_and_at_those_of_the_setting(port: int) -> None:
    for host in ("example.com", "8.8.8.8", "[2606:4700::1111]"):
        url = f"https://{host}:{port}/cat.png"
        assert not is_taken(url)
        check_image_url(url, ImageUrlRules(ports=frozenset({80, 443, port})))


@pytest.mark.parametrize(
    ("url", "is_allowed"),
    [
        ("s3://pictures/cat.png", True),
        ("s3://pictures/a/b/cat.png", True),
        ("s3://shared/open/cat.png", True),
        ("s3://shared/open/", True),
        ("s3://uploads/alice/cat.png", True),
        ("s3://uploads/bob/cat.png", False),
        ("s3://uploads/alice-2/cat.png", False),
        ("s3://uploads/{client}/cat.png", False),
        ("s3://shared/open", False),
        ("s3://shared/open-not/cat.png", False),
        ("s3://shared/cat.png", False),
        ("s3://shared/OPEN/cat.png", False),
        ("s3://Pictures/cat.png", False),
        ("s3://pictures2/cat.png", False),
        ("s3://results/comfyui-results/cat.png", False),
        ("https://example.com/cat.png", True),
    ],
)
def test_only_the_buckets_and_prefixes_of_the_setting_are_named(url: str, is_allowed: bool) -> None:
    buckets = parse_image_buckets("pictures, shared/open/,uploads/{client}/")
    rules = ImageUrlRules(buckets=buckets).for_client("alice")
    assert is_taken(url, rules) is is_allowed
    # Private hosts are another matter.
    assert is_taken(url, ImageUrlRules(allow_private=True, buckets=rules.buckets)) is is_allowed


@pytest.mark.parametrize(("text", "is_allowed"), [("*", True), ("none", False), ("none/", False), ("", False)])
def test_all_buckets_are_a_star_and_none_a_word(text: str, is_allowed: bool) -> None:
    rules = ImageUrlRules(buckets=parse_image_buckets(text))
    assert is_taken("s3://bucket/key", rules) is is_allowed
    assert is_taken("https://example.com/cat.png", rules)


def test_a_refused_bucket_does_not_say_which_others_there_are() -> None:
    rules = ImageUrlRules(buckets=parse_image_buckets("secret-name/prefix/"))
    with pytest.raises(UnacceptableImageUrl, match="may not fetch from that bucket") as caught:
        check_image_url("s3://other/key", rules)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "entry",
    ["s3://bucket", "b", "bucket/prefix", "bucket//", "bucket/a//b/", "*/a/", "bucket/*/", "/a/", "bucket/a?/", "a b/"],
)
def test_an_entry_that_is_no_bucket_or_prefix_is_named(entry: str) -> None:
    with pytest.raises(
        ValueError, match=r"^(\S| )+ (is no bucket|does not end with a slash|holds no object)"
    ) as caught:
        parse_image_buckets(f"bucket,{entry}")
    assert str(caught.value).startswith(entry)


@given(st.text())
def test_any_text_is_taken_or_refused(text: str) -> None:
    for url in (text, "https://" + text, "s3://" + text, f"http://[{text}]/", f"https://{text}.com/"):
        for rules in (PUBLIC, PRIVATE_ALLOWED):
            with suppress(UnacceptableImageUrl):
                check_image_url(url, rules)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_inside_an_ipv6_one_is_judged_as_itself(address: IPv4Address) -> None:
    high, low = int(address) >> 16, int(address) & 0xFFFF
    inner = f"{high:x}:{low:x}"
    verdicts = {is_taken(f"http://{address}/")}
    verdicts |= {is_taken(f"http://[{prefix}{inner}]/") for prefix in ("::ffff:", "64:ff9b::")}
    verdicts |= {is_taken(f"http://[2002:{inner}::]/")}
    assert len(verdicts) == 1


@given(st.integers(0, 2**32 - 1))
def test_ipv4_addresses_are_refused_in_other_spellings_than_the_usual(number: int) -> None:
    for url in (
        f"http://{number}/",
        f"http://{number:#x}/",
        f"http://0{number:o}/",
        f"http://{number >> 24}.{number}/",
    ):
        assert not is_taken(url)


def is_taken(url: str, rules: ImageUrlRules = PUBLIC) -> bool:
    try:
        check_image_url(url, rules)
    except UnacceptableImageUrl:
        return False
    return True
