"""Puts one active instance into nova's cell database, run by nova's own Python.

argv: the configuration file.
"""

import sys

from nova import config, context, objects
from nova.network import model
from nova.objects import instance_mapping
from oslo_utils import timeutils, uuidutils

FLAVOR = {
    **{"id": 1, "flavorid": "1", "name": "small", "memory_mb": 512, "vcpus": 1, "root_gb": 1},
    **{"ephemeral_gb": 0, "swap": 0, "rxtx_factor": 1.0, "vcpu_weight": 0, "disabled": False},
    **{"is_public": True, "extra_specs": {}, "projects": [], "description": None},
}
OWNER = {"project_id": "project", "user_id": "admin"}
INSTANCE = {
    **{"host": "compute", "node": "compute", "compute_id": 1, "vm_state": "active"},
    **{"display_name": "vm", "old_flavor": None, "new_flavor": None, "launch_index": 0},
    **{"system_metadata": {}, "metadata": {}, **OWNER},
}

config.parse_args(["nova", "--config-file", sys.argv[1]])
objects.register_all()
admin = context.get_admin_context()
admin.project_id, admin.user_id = OWNER.values()
(cell,) = (c for c in objects.CellMappingList.get_all(admin) if not c.is_cell0())
with context.target_cell(admin, cell) as in_cell:
    instance = objects.Instance(
        in_cell,
        uuid=uuidutils.generate_uuid(),
        image_ref=uuidutils.generate_uuid(),
        flavor=objects.Flavor(**FLAVOR),
        launched_at=timeutils.utcnow(),
        **INSTANCE,
    )
    instance.create()
    # empty, or the answer is not assembled from it
    info = objects.InstanceInfoCache.new(in_cell, instance.uuid)
    info.network_info = model.NetworkInfo([])
    info.save()
mapping = {"instance_uuid": instance.uuid, "cell_mapping": cell, "queued_for_delete": False}
instance_mapping.InstanceMapping(admin, **mapping, **OWNER).create()
