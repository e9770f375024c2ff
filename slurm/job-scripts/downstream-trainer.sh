#!/usr/bin/env bash
#SBATCH --job-name=downstream-trainer
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=24
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --signal=B:USR1@300
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
#
# Training a classifier on a pretrained encoder, with the published settings as defaults. From the root of the project:
#
#   DATA_DIR=mimic-cxr-jpg sbatch slurm/job-scripts/downstream-trainer.sh
#   DATA_DIR=mimic-cxr-jpg CKPT_DIR=runs/ssl-mae-seed0 sbatch slurm/job-scripts/downstream-trainer.sh
#   DATA_DIR=mimic-cxr-jpg sbatch --array=0-4 slurm/job-scripts/downstream-trainer.sh   # five seeds, five encoders
#
# The reasons for the lines above are in ssl-trainer.sh, beside this file.
set -euo pipefail

: "${DATA_DIR:?set DATA_DIR to a MIMIC-CXR-JPG folder or a pack}"

cd "${CHEXMSN_HOME:-${SLURM_SUBMIT_DIR:-$PWD}}"
source slurm/job-scripts/requeue.sh

SEED="$((${SEED:-0} + ${SLURM_ARRAY_TASK_ID:-0}))"
# An array without CKPT_DIR takes the encoder that ssl-trainer.sh trained under the same seed.
CKPT_DIR="${CKPT_DIR:-runs/ssl-msn-seed$SEED}"
DATA_SHARE="${DATA_SHARE:-1.0}"
RUN_DIR="${RUNS:-runs}/downstream-$(basename "$CKPT_DIR")-share$DATA_SHARE-seed$SEED"

run_and_requeue "${PYTHON:-.venv/bin/python}" downstream-trainer.py \
    --tm "${ENCODER_KIND:-transformer}" \
    -d "$DATA_DIR" \
    --ckpt "$CKPT_DIR" \
    --dp "$DATA_SHARE" \
    -b "${BATCH_SIZE:-128}" \
    --pm "${PIN_MEMORY:-True}" \
    -w "${WORKERS:-${SLURM_CPUS_PER_TASK:-24}}" \
    --mr "${MASK_RATIO:-0.15}" \
    -c "${CLASSES:-14}" \
    --lr "${LEARNING_RATE:-0.0001}" \
    --wd "${WEIGHT_DECAY:-0.001}" \
    -f "${FREEZE:-False}" \
    --ngpus "${NGPUS:-${SLURM_NTASKS_PER_NODE:-1}}" \
    --nodes "${SLURM_NNODES:-1}" \
    --acc "${ACCELERATOR:-gpu}" \
    -e "${EPOCHS:-100}" \
    -p "${PRECISION:-32}" \
    --esd "${EARLY_STOPPING_DELTA:-0.0001}" \
    --seed "$SEED" \
    --out "$RUN_DIR" \
    "$@"
