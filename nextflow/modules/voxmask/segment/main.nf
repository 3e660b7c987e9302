process SEGMENT {
    tag "$meta.id"
    label 'process_medium'
    label 'process_gpu'

    conda "${moduleDir}/environment.yml"
    container "voxmask/voxmask:0.1.0${task.accelerator ? '-cuda' : ''}"

    input:
    tuple val(meta), path(images)
    path model, stageAs: 'model'

    output:
    tuple val(meta), path("${prefix}.nii.gz"), emit: labels
    tuple val(meta), path("${prefix}.png"),    emit: picture
    tuple val(meta), path("${prefix}.json"),   emit: report
    tuple val("${task.process}"), val('voxmask'), eval("voxmask-segment --version | sed 's/^.* //'"), topic: versions, emit: versions_voxmask

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    def device = task.accelerator ? 'cuda' : 'cpu'
    def inputs = (images instanceof List ? images : [images]).collect { image -> "--input ${image}" }.join(' ')
    prefix = task.ext.prefix ?: "${meta.id}_labels"
    """
    voxmask-segment \\
        ${inputs} --model ${model} --output ${prefix}.nii.gz --picture ${prefix}.png \\
        --report ${prefix}.json \\
        --threads ${task.cpus} --device ${device} ${args}
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}_labels"
    """
    echo "" | gzip > ${prefix}.nii.gz
    touch ${prefix}.png
    touch ${prefix}.json
    """
}
