process CROPPATCHES {
    tag "$meta.id"
    label 'process_low'

    conda "${moduleDir}/environment.yml"
    container 'voxmask/voxmask:0.1.0'

    input:
    tuple val(meta), path(image), path(foreground), path(anonymization_area)

    output:
    tuple val(meta), path("${prefix}"),      emit: patches
    tuple val(meta), path("${prefix}.json"), emit: report
    tuple val("${task.process}"), val('voxmask'), eval("voxmask-crop-patches --version | sed 's/^.* //'"), topic: versions, emit: versions_voxmask

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    def foreground_arg = foreground ? "--foreground ${foreground}" : ''
    def area_arg = anonymization_area ? "--anonymization-area ${anonymization_area}" : ''
    prefix = task.ext.prefix ?: "${meta.id}_patches"
    """
    voxmask-crop-patches \\
        --input ${image} ${foreground_arg} ${area_arg} --output ${prefix} \\
        --report ${prefix}.json \\
        --threads ${task.cpus} ${args}
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}_patches"
    """
    mkdir ${prefix}
    touch ${prefix}.json
    """
}
