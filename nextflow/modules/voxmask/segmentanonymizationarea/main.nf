process SEGMENTANONYMIZATIONAREA {
    tag "$meta.id"
    label 'process_medium'
    label 'process_gpu'

    conda "${moduleDir}/environment.yml"
    container "voxmask/voxmask:0.1.0${task.accelerator ? '-cuda' : ''}"

    input:
    tuple val(meta), path(image), path(foreground), val(modality)

    output:
    tuple val(meta), path("${prefix}.nii.gz"),     emit: mask
    tuple val(meta), path("${prefix}.png"),        emit: picture
    tuple val(meta), path("${prefix}.json"),       emit: report
    tuple val(meta), path("*_probability.nii.gz"), optional: true, emit: probability
    tuple val("${task.process}"), val('voxmask'), eval("voxmask-segment-anonymization-area --version | sed 's/^.* //'"), topic: versions, emit: versions_voxmask

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    def device = task.accelerator ? 'cuda' : 'cpu'
    def foreground_arg = foreground ? "--foreground ${foreground}" : ''
    prefix = task.ext.prefix ?: "${meta.id}_anonymization_area"
    """
    voxmask-segment-anonymization-area \\
        --input ${image} --modality ${modality} ${foreground_arg} --output ${prefix}.nii.gz --picture ${prefix}.png \\
        --report ${prefix}.json \\
        --threads ${task.cpus} --device ${device} ${args}
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}_anonymization_area"
    """
    echo "" | gzip > ${prefix}.nii.gz
    touch ${prefix}.png
    touch ${prefix}.json
    """
}
