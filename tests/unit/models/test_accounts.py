"""Cloud accounts in a worker's settings."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from models.clouds import AwsSettings, CloudAccounts, place_of

ACCOUNTS = TypeAdapter[CloudAccounts](CloudAccounts)


def test_each_provider_has_settings_of_its_own() -> None:
    azure = {"cloud": "azure", "region": "westeurope", "subscription": "0" * 8 + "-0000" * 3 + "-" + "0" * 12}
    accounts = ACCOUNTS.validate_python(
        [{"cloud": "aws", "region": "eu-central-1"}, azure | {"resource_group": "fleet"}]
    )
    assert [place_of(each) for each in accounts] == ["aws:eu-central-1", "azure:westeurope"]


def test_two_accounts_of_one_place_are_refused_since_its_name_would_not_tell_them_apart() -> None:
    twice = [AwsSettings(region="us-east-1"), AwsSettings(region="us-east-1", profile="other")]
    with pytest.raises(ValidationError, match="aws:us-east-1 has 2 accounts"):
        ACCOUNTS.validate_python(twice)
    assert ACCOUNTS.validate_python([twice[0], AwsSettings(region="us-east-2")])
