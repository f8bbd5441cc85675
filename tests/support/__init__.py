"""What tests share. Importing the package loads nothing: worker processes import its modules.

agents       small agents, configurations and batches
commands     train.py as tests call it, run folders, checkpoints, exact comparison
conversions  a dataset file and the conversion command
envs         an environment whose episodes depend on the seed, for worker processes
marked       episodes whose every row encodes its origin
official     Safety-Gymnasium's own environments
pages        metrics and commands in the documentation
policy_sets  agents with a policy set
reports      run folders and pages for the tests of the report
toy_data     episodes of a moving disc, the dataset of most tests
toy_online   train.py whose online runs act in toy environments, as a program
worlds       small worlds for scripted policies
"""
