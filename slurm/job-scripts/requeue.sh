# shellcheck shell=bash
# Sourced by the job scripts: run a command so that the job survives its time limit and preemption.
#
# The trainers save when they are told to stop and resume at that step when the same command is given again,
# so all a job has to do is to stop in good time and ask for another turn.

run_and_requeue() {
    # One Slurm task per GPU; on a machine without Slurm the command runs as it is.
    local launcher=()
    if command -v srun >/dev/null; then launcher=(srun --kill-on-bad-exit=1); fi

    trap requeue USR1   # the time limit is near (--signal in the job scripts)
    trap give_up TERM   # preempted or cancelled: Slurm decides whether the job comes back
    "${launcher[@]}" "$@" &  # after the traps, which a signal at once would otherwise come before
    trainer=$!

    local status=0
    wait "$trainer" || status=$?
    return "$status"
}

# TERM and not INT: a shell without job control starts background commands with INT ignored.
stop_trainer() {
    trap '' USR1 TERM  # a second signal must not cut the waiting short
    local trainer=${!:-}  # nothing where the signal came before the start
    if [[ -z $trainer ]]; then return; fi
    kill -TERM "$trainer" 2>/dev/null || true
    wait "$trainer" || true
}

give_up() {
    stop_trainer
    exit 143
}

requeue() {
    stop_trainer
    echo "time limit near: asking Slurm for another turn of job $SLURM_JOB_ID"
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
}
