#!/usr/bin/env bash
#SBATCH --job-name=prepare
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --mem-per-cpu=2G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --signal=B:USR1@60
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
#
# Packing a collection, no GPU needed. From the root of the project, on one machine:
#
#   SOURCE=mimic-cxr-jpg DATA_DIR=mimic-cxr-jpg OUT=packs/mimic sbatch --cpus-per-task=16 slurm/job-scripts/prepare.sh
#
# or in shards on as many machines as are free, and a job that joins them when all are whole:
#
#   export SOURCE=mimic-cxr-jpg DATA_DIR=mimic-cxr-jpg OUT=packs/mimic SHARDS=16
#   job=$(sbatch --parsable --array=1-16 slurm/job-scripts/prepare.sh)
#   sbatch --dependency=afterok:"$job" slurm/job-scripts/prepare.sh --merge 16
#
# A shard that failed is made by the same command with its own number: sbatch --array=3 ... goes on where it stopped.
# The reasons for the lines above are in ssl-trainer.sh, beside this file. Further options of chexmsn prepare may follow.
set -euo pipefail

: "${SOURCE:?set SOURCE to the kind of collection, such as mimic-cxr-jpg}"
: "${DATA_DIR:?set DATA_DIR to the folder of the collection}"
: "${OUT:?set OUT to the folder that becomes the pack}"

cd "${CHEXMSN_HOME:-${SLURM_SUBMIT_DIR:-$PWD}}"
source slurm/job-scripts/requeue.sh

part=()
if [ -n "${SLURM_ARRAY_TASK_ID:-}" ]; then
    part=(--shard "$SLURM_ARRAY_TASK_ID/${SHARDS:?set SHARDS to how many shards there are in all}")
fi

run_and_requeue "${PYTHON:-.venv/bin/python}" -m chexmsn prepare "$SOURCE" "$DATA_DIR" "$OUT" \
    --workers "${WORKERS:-${SLURM_CPUS_PER_TASK:-4}}" \
    "${part[@]}" \
    "$@"
