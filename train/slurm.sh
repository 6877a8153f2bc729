#!/bin/bash
# Trains on several hosts under Slurm: one process for each GPU, which find each other by themselves.
#
#     sbatch --nodes 4 train/slurm.sh mnist-large-batch --data-dir /shared/mnist
#
# What follows the script is what follows `python -m train fit`. The run's folder (--out) has to be
# on a file system that all hosts share. Slurm tells the processes two minutes before the time is up;
# they write a checkpoint, and the job goes back into the queue and goes on from there.

#SBATCH --job-name capsjax
#SBATCH --nodes 2
#SBATCH --ntasks-per-node 8
#SBATCH --gpus-per-node 8
#SBATCH --cpus-per-task 4
#SBATCH --time 04:00:00
#SBATCH --signal TERM@120
#SBATCH --requeue
#SBATCH --open-mode append

cd "${SLURM_SUBMIT_DIR:?this script is for sbatch}" || exit
# When one process has ended, the others get a minute.
srun --wait 60 .venv/bin/python -m train fit "$@" --distributed --resume
code=$?
# 75: asked to stop, and a checkpoint is written.
if [ "$code" -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
