"""The profile of hypothesis: few examples, and the same ones in every run of continuous integration.

`DIETNERF_NS_EXAMPLES=1000 pytest tests/properties` looks more thoroughly.
"""

import os

from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "properties",
    max_examples=int(os.environ.get("DIETNERF_NS_EXAMPLES", "20")),
    deadline=None,  # the first example loads libraries
    derandomize="CI" in os.environ,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],  # to explain a failure takes minutes
    database=None,  # no folder of examples beside the code
    suppress_health_check=[HealthCheck.too_slow],  # loaded machines
)
settings.load_profile("properties")
