# SPDX-License-Identifier: Apache-2.0
"""Scores, data sets to be scored on, and runs that can be stopped and shared out."""

from vitron.evaluation.answers import Answer, ScriptedReplier, answer
from vitron.evaluation.calls import CallScores, TurnScore, score_turn
from vitron.evaluation.metrics import (
    MaskScores,
    accuracy_at,
    boundary_f,
    box_iou,
    ciou,
    giou,
    j_and_f,
    mask_iou,
    overlap,
    tube_iou,
    video_miou,
)
from vitron.evaluation.pictures import EditScores, Embed, clipsim, edit_scores, fid
from vitron.evaluation.readers import Item, read_items
from vitron.evaluation.run import Evaluation, evaluate
from vitron.evaluation.tasks import TASKS, EvaluationTask
from vitron.evaluation.texts import cider, meteor, normalise_answer, vqa_accuracy

__all__ = [
    "TASKS",
    "Answer",
    "CallScores",
    "EditScores",
    "Embed",
    "Evaluation",
    "EvaluationTask",
    "Item",
    "MaskScores",
    "ScriptedReplier",
    "TurnScore",
    "accuracy_at",
    "answer",
    "boundary_f",
    "box_iou",
    "cider",
    "ciou",
    "clipsim",
    "edit_scores",
    "evaluate",
    "fid",
    "giou",
    "j_and_f",
    "mask_iou",
    "meteor",
    "normalise_answer",
    "overlap",
    "read_items",
    "score_turn",
    "tube_iou",
    "video_miou",
    "vqa_accuracy",
]
