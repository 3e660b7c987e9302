process COLLECT {
    tag "$meta.id"
    label 'process_single'

    conda "${moduleDir}/environment.yml"
    container 'voxmask/voxmask:0.1.0'

    input:
    tuple val(meta), path(scans, stageAs: 'scans/?/*'), path(results, stageAs: 'results/?/*'), path(subjects)

    output:
    tuple val(meta), path("${prefix}"),      emit: dataset
    tuple val(meta), path("${prefix}.json"), emit: report
    tuple val("${task.process}"), val('voxmask'), eval("voxmask-collect --version | sed 's/^.* //'"), topic: versions, emit: versions_voxmask

    when:
    task.ext.when == null || task.ext.when

    script:
    def args = task.ext.args ?: ''
    def subjects_arg = subjects ? "--subjects ${subjects}" : ''
    prefix = task.ext.prefix ?: "${meta.id}"
    // Links would point into this task's folder: the data set holds copies.
    """
    voxmask-collect \\
        --input scans --results results --output ${prefix} ${subjects_arg} \\
        --report ${prefix}.json --files copy \\
        --threads ${task.cpus} ${args}
    """

    stub:
    prefix = task.ext.prefix ?: "${meta.id}"
    """
    mkdir ${prefix}
    touch ${prefix}.json
    """
}
