"""Whatever a user gets wrong: one line that says what, where and what to do; exit code 2."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import media_factory
from integration_run import write_yaml, tree
