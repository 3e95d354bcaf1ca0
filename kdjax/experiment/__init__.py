"""What an experiment is: the names that presets are written with.

The fields are in `fields`; what they must obey is in `rules`, what becomes of them in `runs`.
"""

from kdjax.experiment.fields import ASSISTANTS as ASSISTANTS
from kdjax.experiment.fields import UNKNOWN as UNKNOWN
from kdjax.experiment.fields import Cache as Cache
from kdjax.experiment.fields import Copied as Copied
from kdjax.experiment.fields import Data as Data
from kdjax.experiment.fields import Experiment as Experiment
from kdjax.experiment.fields import Fit as Fit
from kdjax.experiment.fields import Imported as Imported
from kdjax.experiment.fields import Processes as Processes
from kdjax.experiment.fields import Published as Published
from kdjax.experiment.fields import Run as Run
from kdjax.experiment.fields import Runtime as Runtime
from kdjax.experiment.fields import Student as Student
from kdjax.experiment.fields import Teacher as Teacher
from kdjax.experiment.fields import TeacherReference as TeacherReference
from kdjax.experiment.metrics import BalancedAccuracy as BalancedAccuracy
from kdjax.experiment.metrics import Measure as Measure
from kdjax.experiment.metrics import Metric as Metric
from kdjax.experiment.objective import Term as Term
from kdjax.experiment.optim import DOT as DOT
from kdjax.experiment.optim import SGD as SGD
from kdjax.experiment.optim import AdamW as AdamW
from kdjax.experiment.optim import Descent as Descent
from kdjax.experiment.optim import Optax as Optax
from kdjax.experiment.optim import Optimizer as Optimizer
from kdjax.experiment.phases import Group as Group
from kdjax.experiment.phases import Phase as Phase
from kdjax.experiment.schedules import Constant as Constant
from kdjax.experiment.schedules import Cosine as Cosine
from kdjax.experiment.schedules import LearningRate as LearningRate
from kdjax.experiment.schedules import OneCycle as OneCycle
from kdjax.experiment.schedules import Schedule as Schedule
from kdjax.experiment.schedules import Steps as Steps
from kdjax.experiment.schedules import WarmRestarts as WarmRestarts
from kdjax.experiment.updates import Decay as Decay
from kdjax.students.derive import Derive as Derive
