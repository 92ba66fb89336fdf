"""Merchants: which names as people write them are one merchant."""

from harmonizer_assets.core.merchants.overrides import MerchantOverrides
from harmonizer_assets.core.merchants.update import MerchantNames

__all__ = ["MerchantNames", "MerchantOverrides"]
