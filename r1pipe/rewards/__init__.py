"""The named rewards that a recipe weighs (DeepSeek-R1 paper, sections 2.2.2, 2.3.2 and 2.3.4).

`accuracy`, `format`, `language` and `preference` are from 0 to 1; `overlong` and `repetition` are from -1 to
0, since they only ever take away. docs/rewards.md has each formula. A verdict that is undecided makes every
reward None: a judge that ran out of time is never a reward of zero.
"""

from r1pipe.rewards.base import Reward, RewardInput, Rewards, each, give, total
from r1pipe.rewards.check import AskedItem, CheckedTask, check_rewards
from r1pipe.rewards.rules import REWARDS, LanguageWhen, RewardName, Scorer, make_rewards

__all__ = [
    "REWARDS",
    "AskedItem",
    "CheckedTask",
    "LanguageWhen",
    "Reward",
    "RewardInput",
    "RewardName",
    "Rewards",
    "Scorer",
    "check_rewards",
    "each",
    "give",
    "make_rewards",
    "total",
]
