process QAMETRICS {
    tag "$meta.id"
    label 'process_low'

    conda "${moduleDir}/environment.yml"
    container 'voxmask/voxmask:0.1.0'

    input:
    tuple val(meta), path(mask), path(image), path(reference), path(ignore)

    output:
    tuple val(meta), path("${prefix}.json"), emit: report
    tuple val("${task.process}"), val('voxmask'), eval("voxmask-qa-metrics --version | sed 's/^.* //'"), topic: versions, emit: versions_voxmask

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    def image_arg = image ? "--image ${image}" : ''
    def reference_arg = reference ? "--reference ${reference}" : ''
    def ignore_arg = ignore ? "--ignore ${ignore}" : ''
    prefix = task.ext.prefix ?: "${meta.id}_qa"
    """
    voxmask-qa-metrics \\
        --input ${mask} ${image_arg} ${reference_arg} ${ignore_arg} \\
        --report ${prefix}.json \\
        --threads ${task.cpus} ${args}
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}_qa"
    """
    touch ${prefix}.json
    """
}
