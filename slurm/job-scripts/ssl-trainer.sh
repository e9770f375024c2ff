#!/usr/bin/env bash
#SBATCH --job-name=ssl-trainer
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
# Pretraining, with the published settings as defaults. From the root of the project:
#
#   DATA_DIR=mimic-cxr-jpg sbatch slurm/job-scripts/ssl-trainer.sh
#   DATA_DIR=mimic-cxr-jpg METHOD=mae MASK_RATIO=0.75 sbatch slurm/job-scripts/ssl-trainer.sh
#   DATA_DIR=mimic-cxr-jpg sbatch --array=0-4 slurm/job-scripts/ssl-trainer.sh       # five seeds
#   DATA_DIR=packs/mimic sbatch --gpus-per-node=4 --ntasks-per-node=4 --cpus-per-task=12 ...             # 4 GPUs
#   DATA_DIR=packs/mimic sbatch --nodes=2 --gpus-per-node=4 --ntasks-per-node=4 --cpus-per-task=12 ...   # 8 on 2 nodes
#
# For several GPUs give a pack (chexmsn prepare): a raw folder would be packed by every task at once.
# Partition, account and modules differ from site to site: give them to sbatch, and name the interpreter in PYTHON.
# --signal: B: tells the shell alone, which stops the trainer whatever it does, training or packing, and asks for
#   another turn once; 300 s are enough to stop. (A trainer that gets USR1 itself saves and asks for the turn, too.)
# --output: %j is unique for every element of an array; --open-mode: a requeued job goes on in the same log.
set -euo pipefail

: "${DATA_DIR:?set DATA_DIR to a MIMIC-CXR-JPG folder or a pack}"

# Slurm runs a copy of this file from its spool folder, so the project is found by where sbatch was called.
cd "${CHEXMSN_HOME:-${SLURM_SUBMIT_DIR:-$PWD}}"
source slurm/job-scripts/requeue.sh

METHOD="${METHOD:-msn}"
# Every element of an array is its own seed and its own run folder: none writes where another does.
SEED="$((${SEED:-0} + ${SLURM_ARRAY_TASK_ID:-0}))"
RUN_DIR="${RUNS:-runs}/ssl-$METHOD-seed$SEED"

run_and_requeue "${PYTHON:-.venv/bin/python}" ssl-trainer.py \
    -m "$METHOD" \
    -d "$DATA_DIR" \
    -b "${BATCH_SIZE:-128}" \
    --pm "${PIN_MEMORY:-True}" \
    -w "${WORKERS:-${SLURM_CPUS_PER_TASK:-24}}" \
    --mr "${MASK_RATIO:-0.30}" \
    --pn "${PROTOTYPES:-1024}" \
    --lr "${LEARNING_RATE:-0.0001}" \
    --wd "${WEIGHT_DECAY:-0.001}" \
    --ngpus "${NGPUS:-${SLURM_NTASKS_PER_NODE:-1}}" \
    --nodes "${SLURM_NNODES:-1}" \
    --acc "${ACCELERATOR:-gpu}" \
    -e "${EPOCHS:-100}" \
    -p "${PRECISION:-16}" \
    --esd "${EARLY_STOPPING_DELTA:-0.0001}" \
    --seed "$SEED" \
    --out "$RUN_DIR" \
    "$@"
