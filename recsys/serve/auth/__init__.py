"""Who may call, and what for: credentials, tenants, rates and quotas. `docs/security.md` tells how to set them up."""

from recsys.serve.auth.authenticate import Authenticator
from recsys.serve.auth.config import AccessConfig, TenantConfig, load_access

__all__ = ["AccessConfig", "Authenticator", "TenantConfig", "load_access"]
