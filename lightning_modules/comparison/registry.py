"""Which measures a comparison takes. A new one is one class and one line here."""

from lightning_modules.comparison.distributions import Divergences, StepFunctions
from lightning_modules.comparison.joint import Frechet, Mmd, PrincipalAngles, SlicedWasserstein
from lightning_modules.comparison.measure import Measure
from lightning_modules.comparison.moments import Moments
from lightning_modules.comparison.which_model import WhichModel

MEASURES: tuple[type[Measure], ...] = (
    Moments,
    StepFunctions,
    Divergences,
    SlicedWasserstein,
    Frechet,
    Mmd,
    PrincipalAngles,
    WhichModel,
)
