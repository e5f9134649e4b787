"""What is in a test cluster's directory when it starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

HOST = "gridhost"
ONE_SLOT = "one.q"
FILES = {
    "etc.hosts": f"127.0.0.1 {HOST} localhost\n",
    "etc.passwd": "root:x:0:0:root:{place}/home:/bin/sh\ntester:x:1000:1000::{place}/home:/bin/bash\n",
    "etc.group": "root:x:0:\ntester:x:1000:\n",
    "etc.nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "sge/default/common/act_qmaster": f"{HOST}\n",
    "sge/default/common/bootstrap": """\
admin_user root
default_domain none
ignore_fqdn false
spooling_method berkeleydb
spooling_lib libspoolb
spooling_params {place}/spool/db
binary_path /usr/sbin
qmaster_spool_dir {place}/spool
security_mode none
listener_threads 1
worker_threads 1
scheduler_threads 1
""",
    "node": f"hostname {HOST}\nload_scaling NONE\ncomplex_values NONE\nuser_lists NONE\nxuser_lists NONE\n"
    "projects NONE\nxprojects NONE\nusage_scaling NONE\nreport_variables NONE\n",
    "smp": """\
pe_name smp
slots 999
user_lists NONE
xuser_lists NONE
start_proc_args NONE
stop_proc_args NONE
allocation_rule $pe_slots
control_slaves FALSE
job_is_first_task TRUE
urgency_slots min
accounting_summary FALSE
qsort_args NONE
""",
}
_LIMITS = "".join(
    f"{hardness}_{what} INFINITY\n"
    for hardness in "sh"
    for what in ("cpu", "fsize", "data", "stack", "core", "rss", "vmem")
)
QUEUE = (
    f"""\
qname {{name}}
hostlist {HOST}
seq_no 0
load_thresholds NONE
suspend_thresholds NONE
nsuspend 1
suspend_interval 00:05:00
priority 0
min_cpu_interval 00:00:01
processors UNDEFINED
qtype BATCH
ckpt_list NONE
pe_list smp
rerun FALSE
slots {{slots}}
tmpdir {{place}}/tmp
shell /bin/bash
prolog NONE
epilog NONE
shell_start_mode posix_compliant
starter_method NONE
suspend_method NONE
resume_method NONE
terminate_method NONE
notify 00:00:05
owner_list NONE
user_lists NONE
xuser_lists NONE
subordinate_list NONE
complex_values NONE
projects NONE
xprojects NONE
calendar NONE
initial_state default
s_rt INFINITY
h_rt {{limit}}
"""
    + _LIMITS
)
# Accounting is written at once; no shell is a login shell, which would read the profile of the machine.
_QUICK = {
    "min_uid": "100",
    "min_gid": "100",
    "mailer": "/bin/true",
    "login_shells": "none",
    "load_report_time": "00:00:05",
    "reporting_params": "accounting=true reporting=false flush_time=00:00:01 accounting_flush_time=00:00:00 "
    "joblog=false sharelog=00:00:00",
}


def filled(text: str, place: Path) -> str:
    """Return a file's text with the place of the cluster."""
    return text.replace("{place}", str(place))


def configuration(text: str, place: Path, settings: Mapping[str, str]) -> str:
    """Return the configuration of a cluster, from that of the package or of the running cluster."""
    changed = {**_QUICK, "execd_spool_dir": f"{place}/spool/node", **settings}
    whole = text.replace("\\\n", " ")  # long lines go on
    lines = [line.split(None, 1) for line in whole.splitlines() if line.strip() and not line.startswith("#")]
    return "".join(f"{name} {changed.get(name, ' '.join(value))}\n" for name, *value in lines)
