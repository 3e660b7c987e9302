process DCM2NIIX {
    tag "$meta.id"
    label 'process_single'

    conda "${moduleDir}/environment.yml"
    container 'voxmask/voxmask:0.1.0'

    input:
    tuple val(meta), path(dicom, stageAs: 'dicom')

    output:
    tuple val(meta), path("${prefix}*.nii.gz"), emit: image
    tuple val("${task.process}"), val('dcm2niix'), eval("(dcm2niix --version || true) | sed -n 's/^v//p'"), topic: versions, emit: versions_dcm2niix

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    prefix = task.ext.prefix ?: "${meta.id}"
    // -b n: a sidecar would name the institution. -g i: settings in a home folder change nothing.
    """
    dcm2niix -b n -g i -z i -f ${prefix}_s%s -o . ${args} dicom
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    echo "" | gzip > ${prefix}_s1.nii.gz
    """
}
